import * as Y from 'yjs'
import { WebsocketProvider } from 'y-websocket'
import WebSocket from 'ws'

const doc = new Y.Doc()
const notes = doc.getText('notes')
const provider = new WebsocketProvider('ws://127.0.0.1:1234', 'trip-1', doc, { WebSocketPolyfill: WebSocket })

provider.on('sync', () => console.log('synced:', notes.toString()))
notes.observe(() => console.log('now:   ', notes.toString()))
process.stdin.on('data', line => notes.insert(notes.length, String(line).trim() + ' '))

import { attachConfirm } from 'crdt-sync-client'

const confirm = attachConfirm(provider)
confirm.on('change', () => console.log(`${confirm.state}, ${confirm.unsaved} unsaved`))
