/**
 * Tells what is saved: a plug-in for the stock WebsocketProvider of y-websocket 1.5, 2 and 3, and @y/websocket 4.
 *
 * After edits it sends a confirm message on the provider's socket. The server sends that back once everything that this
 * connection had sent before is stored. Nothing else counts as saved: that an edit was sent says little.
 *
 * Owns what is confirmed and what isn't. Leaves tokens to `tokens.js`, when to come back to `reconnects.js`, other tabs
 * to `tabs.js`, and bytes to `messages.js`.
 *
 * @module crdt-sync-client
 */

import { Count } from './count.js'
import { CONFIRM, decode, encodeConfirm, encodeUpdate } from './messages.js'
import { Reconnects } from './reconnects.js'
import { Tabs } from './tabs.js'
import { later } from './timers.js'
import { Tokens } from './tokens.js'

const OPEN = 1 // WebSocket.OPEN, wherever the provider has its WebSocket from

// A server that can store answers within a second. After so long it is either in trouble or doesn't know the message.
const ANSWER_MS = 10_000

// Who keeps a count but doesn't say when the document is loaded gets so long for that.
const LOAD_MS = 2000

const attached = new WeakSet()

/**
 * A provider's socket, and how far it is.
 *
 * @typedef {object} Link
 * @property {WebSocket} socket
 * @property {boolean} isOpen
 * @property {boolean} isAsked The server has said what it has, and the provider has sent the rest
 * @property {boolean} isLate It was open already when this got to know of it
 * @property {() => void} leave Listen to it no more
 */

/**
 * Watch what a provider's document has that its server hasn't stored.
 *
 * @param {any} provider A WebsocketProvider, connected or not yet
 * @param {import('./index.js').ConfirmOptions} [options]
 * @return {import('./index.js').Confirm}
 */
export function attachConfirm (provider, options = {}) {
  if (typeof provider?.on !== 'function' || typeof provider.doc?.on !== 'function' || !Array.isArray(provider.messageHandlers)) {
    throw new TypeError("attachConfirm: the first argument has to be y-websocket's WebsocketProvider")
  }
  if (options.token !== undefined && typeof options.token !== 'function') {
    throw new TypeError('attachConfirm: options.token has to be a function that returns a token, or the promise of one')
  }
  if (options.storage !== undefined && typeof options.storage?.getItem !== 'function') {
    throw new TypeError('attachConfirm: options.storage has to be localStorage, or something like it')
  }
  if (attached.has(provider)) {
    throw new Error('attachConfirm: this provider is attached already: use what the first call returned, or destroy() that')
  }
  return new Confirm(provider, options)
}

class Confirm {
  #provider
  #count
  #tokens
  #tabs
  #listeners = new Map()
  #cleanups = []
  #destroyed = false

  // Goes up with everything that has to be stored. What is stored is a number that it had when the server was asked.
  #changes = 1 // what the document holds already
  #changesStored = 0
  #edits // those changes that were made here
  #editsStored = 0

  /** @type {Link | null} */
  #link = null
  /**
   * The confirmation that is under way, one at a time, with what `#changes` and `#edits` were when it was asked for.
   * @type {{ token: string, changes: number, edits: number, timer: any } | null}
   */
  #waiting = null
  #asking = false
  #session = Math.random().toString(36).slice(2)
  #number = 0
  #loading = false
  /** @type {{ changes: number, resolve: () => void, reject: (error: Error) => void }[]} */
  #waiters = []
  /**
   * Why the provider doesn't come back, until it is told to.
   * @type {Error | null}
   */
  #final = null
  /** @type {Date | null} */
  #lastSavedAt = null
  /** @type {boolean | null} */
  #supported = null
  /** @type {unknown[]} */
  #told

  /**
   * @param {any} provider
   * @param {import('./index.js').ConfirmOptions} options
   */
  constructor (provider, { token, storage, loaded }) {
    this.#provider = provider
    this.#count = new Count(storage, `crdt-sync-unsaved:${provider.bcChannel}`)
    this.#edits = this.#count.inherited
    attached.add(provider)
    this.#cleanups.push(() => attached.delete(provider))
    const emit = (event, value) => this.#emit(event, value)
    this.#tokens = new Tokens(provider, token, emit)
    this.#tabs = new Tabs(provider, () => this.#askNow())
    const reconnects = new Reconnects(provider, this.#tokens)
    this.#cleanups.push(() => reconnects.destroy(), () => this.#tabs.destroy(), () => this.#tokens.destroy())

    this.#listen(provider.doc, 'update', (update, origin, _doc, transaction) => this.#changed(update, origin, transaction))
    this.#listen(provider.doc, 'destroy', () => this.destroy())
    this.#listen(provider, 'status', () => this.#look())
    this.#listen(provider, 'connection-close', event => {
      this.#leaveSocket()
      const final = reconnects.closed(event)
      // The provider isn't done with it yet, and whoever hears of it may want to connect.
      queueMicrotask(() => this.#closed(final))
    })
    // Or stock providers complain about a message that they don't know.
    if (provider.messageHandlers[CONFIRM] === undefined) {
      const quiet = () => {}
      provider.messageHandlers[CONFIRM] = quiet
      this.#cleanups.push(() => { if (provider.messageHandlers[CONFIRM] === quiet) delete provider.messageHandlers[CONFIRM] })
    }
    this.#awaitLoad(loaded)
    this.#told = this.#summary()
    this.#look()
  }

  get unsaved () {
    return this.#edits - this.#editsStored
  }

  get state () {
    if (this.#link?.socket.readyState !== OPEN) return 'offline'
    return this.#link.isAsked && this.#changesStored === this.#changes && !this.#loading ? 'saved' : 'saving'
  }

  get lastSavedAt () {
    return this.#lastSavedAt
  }

  get supported () {
    return this.#supported
  }

  saved () {
    if (this.#destroyed) return Promise.reject(new Error('destroyed: nobody knows any more what is saved'))
    const changes = this.#changes
    if (this.#changesStored >= changes && !this.#loading) return Promise.resolve()
    if (this.#final !== null) return Promise.reject(this.#final)
    return new Promise((resolve, reject) => { this.#waiters.push({ changes, resolve: () => resolve(undefined), reject }) })
  }

  on (event, listener) {
    if (typeof listener !== 'function') throw new TypeError(`on: the listener for ${event} isn't a function`)
    if (!this.#listeners.has(event)) this.#listeners.set(event, new Set())
    this.#listeners.get(event).add(listener)
  }

  off (event, listener) {
    this.#listeners.get(event)?.delete(listener)
  }

  destroy () {
    if (this.#destroyed) return
    this.#destroyed = true
    this.#leaveSocket()
    for (const cleanup of this.#cleanups.reverse()) cleanup()
    this.#giveUp(new Error('destroyed before everything was saved'))
    this.#listeners.clear()
  }

  // ------------------------------------------------------------------------------------------ what happens

  #changed (update, origin, transaction) {
    if (origin === this.#provider) {
      // What comes by the socket is the server's already.
      if (!this.#tabs.isHeard) return
      this.#tabs.hold(update)
    }
    this.#changes++
    // What other providers load or receive isn't an edit that was made here, but has to be stored all the same.
    if (transaction?.local || typeof origin !== 'object' || origin === null) {
      this.#edits++
      this.#count.add(1)
    }
    this.#ask()
    this.#tell()
  }

  /** The provider's socket may be another one, or open now. */
  #look () {
    const { ws: socket, wsconnected, synced } = this.#provider
    if (socket && socket !== this.#link?.socket) this.#enterSocket(socket)
    if (wsconnected && this.#link && !this.#link.isOpen) {
      this.#link.isOpen = true
      // A server may have been set back since it confirmed. What it lacks is sent when it asks; that has to be stored too.
      this.#changes++
      if (this.#link.isLate && synced) this.#link.isAsked = true
      this.#ask()
    }
    this.#tell()
  }

  #enterSocket (socket) {
    this.#leaveSocket()
    const heard = event => {
      if (typeof event.data === 'string') return
      const frame = new Uint8Array(event.data)
      this.#heard(link, decode(frame))
      if (!this.#tabs.isHolding) return
      this.#tabs.relayed(frame)
      this.#ask()
    }
    const leave = () => socket.removeEventListener('message', heard)
    const link = { socket, isOpen: false, isAsked: false, isLate: socket.readyState === OPEN, leave }
    socket.addEventListener('message', heard)
    this.#link = link
    this.#final = null
  }

  #leaveSocket () {
    this.#link?.leave()
    this.#link = null
    clearTimeout(this.#waiting?.timer)
    this.#waiting = null
  }

  #heard (link, message) {
    switch (message.kind) {
      // The server says what it has, and the provider has answered by what it lacks. From now on all is sent. It asks before
      // it answers, so whoever was attached too late to hear the one learns it from the other.
      case 'step1':
        link.isAsked = true
        this.#tabs.take()
        return this.#ask()
      case 'step2':
        link.isAsked ||= link.isLate
        return this.#ask()
      case 'confirmed':
        return this.#confirmed(message.token)
      default:
        return this.#tokens.heard(message, link.socket)
    }
  }

  #confirmed (token) {
    const waiting = this.#waiting
    if (waiting === null || waiting.token !== token) return
    clearTimeout(waiting.timer)
    this.#waiting = null
    this.#supported = true
    this.#lastSavedAt = new Date()
    this.#changesStored = waiting.changes
    this.#count.add(this.#editsStored - waiting.edits)
    this.#editsStored = waiting.edits
    const all = this.#waiters
    this.#waiters = all.filter(({ changes }) => changes > waiting.changes)
    for (const { changes, resolve } of all) if (changes <= waiting.changes) resolve()
    this.#ask()
    this.#tell()
  }

  #closed (final) {
    if (this.#destroyed) return
    this.#tell()
    if (final === null) return
    const { code, reason, advice } = final
    const message = `not saved: the server closed the connection for good (${code} ${reason}). ${advice}`
    this.#final = Object.assign(new Error(message), { code, reason })
    this.#giveUp(this.#final)
    this.#emit('closed', final)
  }

  // ------------------------------------------------------------------------------------------ asking

  /** Ask soon, once for all edits of this turn: by then the provider has sent them. */
  #ask () {
    if (this.#asking) return
    this.#asking = true
    queueMicrotask(() => {
      this.#asking = false
      this.#askNow()
    })
  }

  #askNow () {
    const link = this.#link
    if (this.#destroyed || this.#loading || this.#waiting !== null || this.#changesStored === this.#changes) return
    // Only on the socket that the provider sends on, and only once that has sent what the server lacked.
    if (!link?.isAsked || link.socket !== this.#provider.ws || link.socket.readyState !== OPEN) return
    if (this.#tabs.isHolding) {
      if (!this.#tabs.isDue) return
      for (const update of this.#tabs.take()) link.socket.send(encodeUpdate(update))
    }
    const token = `${this.#session}-${++this.#number}`
    const timer = later(() => this.#unanswered(), ANSWER_MS)
    this.#waiting = { token, changes: this.#changes, edits: this.#edits, timer }
    link.socket.send(encodeConfirm(token))
  }

  #unanswered () {
    // It may have trouble storing, and will answer then. But if it never did, it may be one that can't.
    if (this.#supported !== null) return
    this.#supported = false
    this.#tell()
  }

  #awaitLoad (loaded) {
    const late = this.#count.inherited > 0 ? new Promise(resolve => { later(() => resolve(null), LOAD_MS) }) : undefined
    const load = loaded ?? late
    if (load === undefined) return
    this.#loading = true
    const done = () => {
      this.#loading = false
      this.#ask()
      this.#tell()
    }
    Promise.resolve(load).then(done, done)
  }

  // ------------------------------------------------------------------------------------------ telling

  #summary () {
    return [this.state, this.unsaved, this.#supported, this.#lastSavedAt]
  }

  #tell () {
    const before = this.#told
    const now = this.#told = this.#summary()
    if (now.every((value, index) => value === before[index])) return
    this.#emit('change')
    if (now[0] === 'saved' && before[0] !== 'saved') this.#emit('saved')
  }

  #giveUp (error) {
    const waiters = this.#waiters
    this.#waiters = []
    for (const { reject } of waiters) reject(error)
  }

  #emit (event, value) {
    for (const listener of [...this.#listeners.get(event) ?? []]) listener(value)
  }

  #listen (target, event, listener) {
    target.on(event, listener)
    this.#cleanups.push(() => target.off(event, listener))
  }
}
