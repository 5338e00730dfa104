import * as Y from 'yjs'
import { WebsocketProvider } from 'y-websocket'
import WebSocket from 'ws'

const doc = new Y.Doc()
const notes = doc.getText('notes')
const provider = new WebsocketProvider('ws://127.0.0.1:1234', 'trip-1', doc, { WebSocketPolyfill: WebSocket })

provider.on('sync', () => console.log('synced:', notes.toString()))
notes.observe(() => console.log('now:   ', notes.toString()))
process.stdin.on('data', line => notes.insert(notes.length, String(line).trim() + ' '))

import * as encoding from 'lib0/encoding'
import * as decoding from 'lib0/decoding'

provider.messageHandlers[102] = (_encoder, decoder) =>
  console.log('saved: ', decoding.readVarUint8Array(decoder))

let edits = 0
doc.on('update', (_update, origin) => {
  if (origin === provider || !provider.wsconnected) return
  const encoder = encoding.createEncoder()
  encoding.writeVarUint(encoder, 102)
  encoding.writeVarUint8Array(encoder, new Uint8Array([++edits & 255]))
  provider.ws.send(encoding.toUint8Array(encoder))
})
