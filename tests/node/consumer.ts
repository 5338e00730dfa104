// What an application in TypeScript does with clients/js; compiled by tests/interop/test_js_package.py.
import { WebsocketProvider } from 'y-websocket'
import { WebsocketProvider as Old } from 'y-websocket-1.5'
import { WebsocketProvider as V3 } from 'y-websocket-3.0'
import { IndexeddbPersistence } from 'y-indexeddb'
import { attachConfirm, type Confirm, type ConfirmState } from 'crdt-sync-client'
import * as Y from 'yjs'

const doc = new Y.Doc()
const provider = new WebsocketProvider('ws://127.0.0.1:1234', 'trip-1', doc)
const confirm: Confirm = attachConfirm(provider, {
  token: async () => 'token',
  storage: localStorage,
  loaded: new IndexeddbPersistence('trip-1', doc).whenSynced
})
attachConfirm(new Old('ws://127.0.0.1:1234', 'trip-1', doc))
attachConfirm(new V3('ws://127.0.0.1:1234', 'trip-1', doc))
confirm.on('closed', ({ code, reason, advice }) => console.log(code.toFixed(), reason, advice))
confirm.on('expiring', ({ seconds }) => console.log(seconds.toFixed()))
confirm.on('change', () => {
  const state: ConfirmState = confirm.state
  console.log(state, confirm.unsaved.toFixed(), confirm.lastSavedAt?.getTime())
})
await confirm.saved()
// @ts-expect-error
confirm.state = 'saved'
// @ts-expect-error
confirm.on('closing', () => {})
// @ts-expect-error
attachConfirm(doc)
// @ts-expect-error
attachConfirm(provider, { token: 'token' })
