// Somebody who plans a trip: `node person.mjs ann`. Type a line to add it to the plan, `empty` to clear it,
// `offline` and `online`.
import * as Y from 'yjs'
import { WebsocketProvider } from 'y-websocket'
import WebSocket from 'ws'

const name = process.argv[2]
const doc = new Y.Doc()
const plan = doc.getArray('plan')
const provider = new WebsocketProvider('ws://127.0.0.1:1234', 'trip-1', doc, {
  WebSocketPolyfill: WebSocket,
  params: { token: process.env.CRDT_SYNC_TOKEN }
})

const show = () => console.log(`${name} sees: ${plan.toArray().join(', ') || 'nothing'}`)
provider.on('sync', show)
plan.observe(show)

process.stdin.on('data', data => {
  for (const line of String(data).split('\n').filter(line => line.trim())) {
    if (line === 'empty') plan.delete(0, plan.length)
    else if (line === 'offline') provider.disconnect()
    else if (line === 'online') provider.connect()
    else plan.push([line.trim()])
  }
})
