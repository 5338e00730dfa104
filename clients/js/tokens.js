/**
 * Fresh tokens: shown on the open connection before the grant ends, and put where the provider's next connection takes them from.
 */

import { encodeToken } from './messages.js'
import { later } from './timers.js'

const OPEN = 1

// The server says 60 s before a grant ends that it will.
const RENEW_S = 60
// Not asked for more often than that by connections that were refused.
const REFRESH_MS = 30_000

export class Tokens {
  #provider
  #ask
  #emit
  #askedAt = Date.now()
  /** @type {Promise<string | undefined> | null} */
  #pending = null
  #timer
  #isAnswer = false
  #destroyed = false

  /**
   * @param {any} provider
   * @param {(() => string | Promise<string>) | undefined} ask
   * @param {(event: 'denied' | 'expiring', value: unknown) => void} emit
   */
  constructor (provider, ask, emit) {
    this.#provider = provider
    this.#ask = ask
    this.#emit = emit
  }

  /** Whether there is where fresh ones come from. */
  get areRenewed () {
    return this.#ask !== undefined
  }

  /**
   * The server said something about tokens.
   *
   * @param {ReturnType<typeof import('./messages.js').decode>} message
   * @param {WebSocket} socket
   */
  heard (message, socket) {
    if (message.kind === 'denied') {
      this.#isAnswer = false
      this.#emit('denied', { reason: message.reason })
    }
    if (message.kind === 'expires') {
      // After each fresh token it says how long that is good for. If not for long, another one is due at half of it.
      const isAnswer = this.#isAnswer
      this.#isAnswer = false
      if (!isAnswer) this.#emit('expiring', { seconds: message.seconds })
      if (message.seconds > RENEW_S || this.#ask === undefined) return
      clearTimeout(this.#timer)
      this.#timer = later(() => this.#show(socket), isAnswer ? Math.max(1000, message.seconds * 500) : 0)
    }
  }

  /**
   * A connection was lost or refused. If that may be the token's fault, have another one for the next.
   *
   * @param {number | undefined} code What it was closed with. Browsers don't tell refused connections from lost ones
   * @param {number} ms How long from now
   */
  refresh (code, ms) {
    // A renewal that was due on the connection that is gone isn't any more.
    clearTimeout(this.#timer)
    if (this.#ask === undefined || (code !== 4401 && Date.now() - this.#askedAt < REFRESH_MS)) return
    this.#timer = later(() => this.#fetch(), ms)
  }

  destroy () {
    this.#destroyed = true
    clearTimeout(this.#timer)
  }

  async #show (socket) {
    const token = await this.#fetch()
    if (token === undefined || socket !== this.#provider.ws || socket.readyState !== OPEN) return
    this.#isAnswer = true
    socket.send(encodeToken(token))
  }

  /** @return {Promise<string | undefined>} Undefined if there is none to be had; whoever listens for `denied` knows */
  #fetch () {
    this.#askedAt = Date.now()
    this.#pending ??= this.#fetchOne().finally(() => { this.#pending = null })
    return this.#pending
  }

  async #fetchOne () {
    try {
      const token = await this.#ask?.()
      if (typeof token !== 'string' || token === '') throw new TypeError('options.token gave no token')
      if (this.#destroyed) return undefined
      putToken(this.#provider, token)
      return token
    } catch (/** @type {any} */ error) {
      if (!this.#destroyed) this.#emit('denied', { reason: `no fresh token: ${error?.message ?? error}`, error })
      return undefined
    }
  }
}

/** Put a token where the provider has its last one, for its next connection. */
const putToken = (provider, token) => {
  const { protocols, params } = provider
  const index = Array.isArray(protocols) ? protocols.findIndex(one => one.startsWith('bearer.')) : -1
  if (index >= 0) {
    provider.protocols = protocols.map((one, at) => at === index ? `bearer.${token}` : one)
  } else if (params !== undefined) {
    provider.params = { ...params, ['auth' in params ? 'auth' : 'token']: token }
  } else {
    // Before y-websocket 2, parameters are part of a fixed URL.
    const [address, query = ''] = provider.url.split('?')
    const given = new URLSearchParams(query)
    given.set(given.has('auth') ? 'auth' : 'token', token)
    provider.url = `${address}?${given}`
  }
}
