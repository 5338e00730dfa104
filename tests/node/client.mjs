// Any number of stock y-websocket clients in one process, driven by tests/support/clients.py.
//
// One JSON request a line on stdin, one JSON answer a line on stdout, in any order:
// {id, op, client, ...} -> {id, ok: answer} or {id, failed: message}. Bytes are base64. `operations`, at the end, lists
// what can be asked. Waiting happens here, so that the tests in Python neither sleep nor poll over the pipe.
import * as readline from 'node:readline'
import { isDeepStrictEqual } from 'node:util'
import { WebSocket } from 'ws'
import * as decoding from 'lib0/decoding'
import * as encoding from 'lib0/encoding'
import { WebsocketProvider as Provider15 } from 'y-websocket-1.5'
import { WebsocketProvider as Provider30 } from 'y-websocket-3.0'
import { WebsocketProvider as Provider31 } from 'y-websocket'
import { WebsocketProvider as Provider40 } from '@y/websocket'
import { attachConfirm } from '../../clients/js/index.js'
import { content, dialects, edit, patch } from './dialects.mjs'

// Stock clients tell the console about messages that they don't know, and refusals; nobody reads it here.
console.error = console.warn = () => {}

const stock = {
  1.5: { Provider: Provider15, dialect: dialects.v13 },
  '3.0': { Provider: Provider30, dialect: dialects.v13 },
  3.1: { Provider: Provider31, dialect: dialects.v13 },
  '4.0': { Provider: Provider40, dialect: dialects.v14 }
}

const CONFIRM = 102
const CHECK_EVERY_MS = 5

const bytes = text => new Uint8Array(Buffer.from(text, 'base64'))
const base64 = value => Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('base64')
const object = entries => Object.fromEntries(entries)
const pause = ms => new Promise(resolve => setTimeout(resolve, ms))
const turn = () => new Promise(resolve => setImmediate(resolve))

class Client {
  constructor ({ version, url, room, params = {}, connect = true, clientId, state, ca, tabs = false, cookie }) {
    const { Provider, dialect } = stock[version]
    this.dialect = dialect
    this.ca = ca
    this.headers = cookie === undefined ? {} : { cookie } // as a browser sends it along
    this.Y = dialect.Y
    this.doc = new this.Y.Doc()
    if (clientId !== undefined) this.doc.clientID = clientId
    dialect.roots(this.doc)
    this.changes = 0 // grows with everything that a condition may look at
    this.updates = []
    this.keepUpdates = false
    this.opened = 0
    this.closes = []
    this.refusals = []
    this.lostAt = undefined
    this.gaps = [] // ms from the loss of each connection until synced again
    this.heard = 0 // updates of others
    this.framesIn = 0
    this.bytesIn = 0
    this.awarenessLog = []
    this.confirming = new Map()
    this.confirmations = 0
    this.provider = new Provider(url, room, this.doc, { params, connect: false, disableBc: !tabs, WebSocketPolyfill: this.watchedSocket() })
    this.provider.messageHandlers[CONFIRM] = (_encoder, decoder) => this.confirmed(decoding.readVarUint8Array(decoder))
    this.doc.on('update', (update, origin) => {
      this.changes++
      if (origin === this.provider) this.heard++
      else if (this.keepUpdates) this.updates.push(base64(update))
    })
    this.provider.on('sync', synced => {
      if (!synced || this.lostAt === undefined) return
      this.gaps.push(Math.round(performance.now() - this.lostAt))
      this.lostAt = undefined
    })
    for (const event of ['status', 'sync', 'connection-close']) this.provider.on(event, () => this.changes++)
    this.provider.awareness.on('change', ({ added, updated, removed }) => {
      this.changes++
      this.awarenessLog.push({ atMs: Math.round(performance.now()), added, updated, removed })
    })
    if (state !== undefined) this.provider.awareness.setLocalState(state)
    if (connect) this.provider.connect()
  }

  // A WebSocket class for this client alone, whose sockets are counted.
  watchedSocket () {
    const client = this
    return class extends WebSocket {
      constructor (address, protocols) {
        super(address, protocols, { perMessageDeflate: false, ca: client.ca, headers: client.headers })
        this.on('open', () => { this.wasOpen = true; client.opened++; client.changes++ })
        this.on('close', (code, reason) => { if (this.wasOpen) client.lostAt ??= performance.now(); client.closes.push({ code, reason: String(reason) }); client.changes++ })
        this.on('error', error => { client.refusals.push(error.message); client.changes++ })
        this.on('message', data => { client.framesIn++; client.bytesIn += data.byteLength ?? data.length })
      }
    }
  }

  confirmed (token) {
    this.confirming.get(base64(token))?.()
  }

  async confirm (timeoutMs) {
    const { ws } = this.provider
    if (ws === null || ws.readyState !== WebSocket.OPEN) throw new Error('asked for a confirmation while not connected')
    const token = new Uint8Array(Buffer.from(`${this.doc.clientID}/${++this.confirmations}`))
    const encoder = encoding.createEncoder()
    encoding.writeVarUint(encoder, CONFIRM)
    encoding.writeVarUint8Array(encoder, token)
    let closed
    try {
      await timed(timeoutMs, 'confirmation', new Promise((resolve, reject) => {
        closed = code => reject(new Error(`the connection closed (${code}) before the confirmation`))
        this.confirming.set(base64(token), resolve)
        ws.on('close', closed)
        ws.send(encoding.toUint8Array(encoder))
      }))
    } finally {
      this.confirming.delete(base64(token))
      ws.off('close', closed)
    }
  }

  // The plug-in of clients/js. `tokens` are what it is given one after the other, the last for ever; null stands for none to be had.
  attach ({ tokens, storage, loaded }) {
    const load = loaded === undefined ? undefined : new Promise(resolve => { this.loaded = resolve })
    const token = tokens === undefined ? undefined : async () => {
      const next = tokens.length > 1 ? tokens.shift() : tokens[0]
      if (next === null) throw new Error('signed out')
      return next
    }
    this.plugin = attachConfirm(this.provider, { token, storage: storage && storageOf(storage), loaded: load })
    this.events = []
    for (const event of ['change', 'saved', 'closed', 'denied', 'expiring']) {
      this.plugin.on(event, value => {
        this.changes++
        if (event !== 'change') this.events.push(value === undefined ? event : [event, { ...value, error: undefined }])
      })
    }
  }

  report () {
    const { state, unsaved, supported, lastSavedAt } = this.plugin
    return { state, unsaved, supported, lastSavedAt, events: this.events.map(event => Array.isArray(event) ? event[0] : event) }
  }

  stateVector () {
    return object(this.Y.decodeStateVector(this.Y.encodeStateVector(this.doc)))
  }

  states () {
    return object(this.provider.awareness.getStates())
  }

  status () {
    const { provider, doc, opened, closes, gaps, refusals, heard, framesIn, bytesIn } = this
    const buffered = provider.ws?.bufferedAmount ?? 0
    const { wsconnected: connected, synced, shouldConnect } = provider
    return { clientId: doc.clientID, connected, synced, shouldConnect, opened, closes, gaps, refusals, heard, framesIn, bytesIn, buffered }
  }

  socket () {
    if (this.provider.ws === null) throw new Error('there is no socket')
    return this.provider.ws
  }

  destroy () {
    this.provider.destroy()
    this.provider.awareness.destroy()
    this.doc.destroy()
  }
}

// ---------------------------------------------------------------------------------------------- waiting

const timed = async (timeoutMs, what, promise) => {
  let timer
  const late = new Promise((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`no ${what} within ${timeoutMs} ms`)), timeoutMs)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

const storages = new Map()
const storageOf = name => {
  if (!storages.has(name)) storages.set(name, new Map())
  const items = storages.get(name)
  return { getItem: key => items.get(key) ?? null, setItem: (key, value) => items.set(key, value), removeItem: key => items.delete(key) }
}

const includes = (whole, part) => Object.entries(part).every(([key, value]) => isDeepStrictEqual(whole[key], value))

// What a condition looks at, and whether it is satisfied: a list of both.
const conditions = {
  synced: (client, wanted) => [client.provider.synced, client.provider.synced === wanted],
  connected: (client, wanted) => [client.provider.wsconnected, client.provider.wsconnected === wanted],
  content: (client, wanted) => {
    const seen = content(client.dialect, client.doc, Object.keys(wanted))
    return [seen, isDeepStrictEqual(seen, wanted)]
  },
  textLength: (client, wanted) => {
    const { length } = client.dialect.roots(client.doc).text
    return [length, length === wanted]
  },
  covers: (client, wanted) => {
    const seen = client.stateVector()
    return [seen, Object.entries(wanted).every(([id, clock]) => (seen[id] ?? 0) >= clock)]
  },
  present: (client, wanted) => [client.states(), wanted.every(id => id in client.states())],
  absent: (client, wanted) => [client.states(), wanted.every(id => !(id in client.states()))],
  states: (client, wanted) => [client.states(), includes(client.states(), wanted)],
  plugin: (client, wanted) => [client.report(), includes(client.report(), wanted)],
  told: (client, wanted) => [client.report().events, wanted.every(event => client.report().events.includes(event))],
  opened: (client, wanted) => [client.opened, client.opened >= wanted],
  closes: (client, wanted) => [client.closes, client.closes.length >= wanted],
  refusals: (client, wanted) => [client.refusals, client.refusals.length >= wanted]
}

const wait = async (client, until, timeoutMs) => {
  const started = performance.now()
  let looked = -1
  for (;;) {
    if (looked !== client.changes) {
      looked = client.changes
      if (Object.entries(until).every(([name, wanted]) => conditions[name](client, wanted)[1])) break
    }
    if (performance.now() - started > timeoutMs) {
      const seen = mapConditions(client, until)
      throw new Error(`waited ${timeoutMs} ms for ${short(until)}; saw ${short(seen)}; ${JSON.stringify(client.status())}`)
    }
    await pause(CHECK_EVERY_MS)
  }
  return Math.round(performance.now() - started)
}

const mapConditions = (client, until) => object(Object.entries(until).map(([name, wanted]) => [name, conditions[name](client, wanted)[0]]))
const short = value => {
  const text = JSON.stringify(value)
  return text.length > 2000 ? `${text.slice(0, 1000)} … ${text.slice(-1000)}` : text
}

// ---------------------------------------------------------------------------------------------- traces

// One transaction after the other, letting the sockets do their work in between.
const replay = async (client, { txns, clamp = false, perTurn = 20 }) => {
  const before = client.heard
  for (const [i, patches] of txns.entries()) {
    patch(client.dialect, client.doc, patches, clamp)
    if (i % perTurn === 0) await turn()
  }
  return client.heard - before
}

// Concurrent writers: each transaction is made on what its writer had seen (`parents`), by one document for each
// writer, and becomes an update. Returns for each the update, and the clocks of what its writer had seen of others.
const record = ({ txns, clientIds }) => {
  const { Y } = dialects.v13
  const writers = clientIds.map(clientId => {
    const doc = new Y.Doc()
    doc.clientID = clientId
    return { doc, seen: new Set() }
  })
  const recorded = []
  const see = (writer, i) => {
    const path = [i]
    const missing = []
    while (path.length > 0) {
      const each = path.pop()
      if (writer.seen.has(each)) continue
      writer.seen.add(each)
      missing.push(each)
      path.push(...txns[each].parents)
    }
    for (const each of missing.sort((a, b) => a - b)) Y.applyUpdate(writer.doc, recorded[each].raw, 'other')
  }
  for (const [i, { parents, agent, patches }] of txns.entries()) {
    const writer = writers[agent]
    for (const parent of parents) see(writer, parent)
    const needs = object(Y.decodeStateVector(Y.encodeStateVector(writer.doc)))
    let raw
    writer.doc.once('update', update => { raw = update })
    patch(dialects.v13, writer.doc, patches, false)
    writer.seen.add(i)
    recorded.push({ agent, raw, needs })
  }
  for (const writer of writers) see(writer, txns.length - 1)
  return {
    updates: recorded.map(({ agent, raw, needs }) => ({ agent, update: base64(raw), needs })),
    texts: writers.map(({ doc }) => doc.getText('text').toString())
  }
}

// Hand recorded updates to a client as if its user typed them: each once everything that it builds upon has arrived.
const play = async (client, { updates, perTurn = 20 }) => {
  for (const [i, { update, needs }] of updates.entries()) {
    const known = id => client.Y.getState(client.doc.store, Number(id))
    while (!Object.entries(needs).every(([id, clock]) => known(id) >= clock)) await turn()
    client.Y.applyUpdate(client.doc, bytes(update), 'typed')
    if (i % perTurn === 0) await turn()
  }
}

// ---------------------------------------------------------------------------------------------- operations

const clients = new Map()

const create = request => {
  const client = new Client(request)
  clients.set(request.client, client)
  return client.doc.clientID
}

const withClient = {
  edit: (client, { edits }) => edit(client.dialect, client.doc, edits),
  content: (client, { parts }) => content(client.dialect, client.doc, parts),
  stateVector: client => client.stateVector(),
  encodeState: client => base64(client.Y.encodeStateAsUpdate(client.doc)),
  apply: (client, { updates }) => { for (const update of updates) client.Y.applyUpdate(client.doc, bytes(update)) },
  keepUpdates: client => { client.keepUpdates = true },
  ownUpdates: client => client.updates,
  trackUndo: client => {
    client.undoer = new client.Y.UndoManager(Object.values(client.dialect.roots(client.doc)), { captureTimeout: 0 })
  },
  undo: client => { client.undoer.undo() },
  redo: client => { client.undoer.redo() },
  replay,
  play: (client, { updates, timeoutMs }) => timed(timeoutMs, 'end of the recording', play(client, { updates })),
  setState: (client, { state }) => client.provider.awareness.setLocalState(state),
  states: client => client.states(),
  awarenessLog: client => client.awarenessLog,
  connect: client => client.provider.connect(),
  disconnect: client => client.provider.disconnect(),
  // The network is gone without a word; unless told otherwise, the provider comes back by itself.
  abort: (client, { comeBack = true }) => {
    const socket = client.socket()
    client.provider.shouldConnect = comeBack
    socket.terminate()
  },
  // A browser tab is closed: a close frame, but no goodbye to the other users.
  closeTab: client => {
    const socket = client.socket()
    client.provider.shouldConnect = false
    socket.close(1001)
  },
  pauseReading: client => client.socket().pause(),
  resumeReading: client => client.socket().resume(),
  send: (client, { message }) => client.socket().send(bytes(message)),
  status: client => client.status(),
  confirm: (client, { timeoutMs }) => {
    const started = performance.now()
    return client.confirm(timeoutMs).then(() => Math.round(performance.now() - started))
  },
  attach: (client, request) => client.attach(request),
  loaded: client => client.loaded(),
  report: client => client.report(),
  events: client => client.events,
  saved: (client, { timeoutMs }) => timed(timeoutMs, 'promise that all is saved', client.plugin.saved()),
  keepEditing: (client, { name, everyMs }) => {
    client.made = 0
    client.editing = setInterval(() => edit(client.dialect, client.doc, [{ on: 'map', path: [], do: 'set', args: [`${name}:${client.made++}`, 1] }]), everyMs)
  },
  detach: client => client.plugin.destroy(),
  evaluate: (client, { script }) => new Function('client', `return (${script})`)(client),
  wait: (client, { until, timeoutMs }) => wait(client, until, timeoutMs),
  destroy: (client, { client: name }) => {
    clients.delete(name)
    clearInterval(client.editing)
    client.destroy()
  }
}

const operations = {
  create,
  record,
  ...object(Object.entries(withClient).map(([op, work]) => [op, request => {
    const client = clients.get(request.client)
    if (client === undefined) throw new Error(`no client is called ${request.client}`)
    return work(client, request)
  }]))
}

const answer = async line => {
  const { id, op, ...request } = JSON.parse(line)
  let reply
  try {
    reply = { id, ok: (await operations[op](request)) ?? null }
  } catch (error) {
    reply = { id, failed: error?.message ?? String(error) }
  }
  process.stdout.write(JSON.stringify(reply) + '\n')
}

for await (const line of readline.createInterface({ input: process.stdin, terminal: false })) answer(line)
process.exit()
