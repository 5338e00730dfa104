/**
 * When a provider comes back: not at all after closing codes that say so, and spread over time after all others.
 *
 * The stock backoff is the same for everybody, so a server that comes up is met by all of its clients at once.
 */

// The first attempt comes after 0.1 to 1 s. The upper end doubles with each, up to the provider's `maxBackoffTime`.
const WAIT_MIN_MS = 100
const WAIT_MAX_MS = 1000
// The provider waits for the lesser of 100 ms * 2 ** attempts and `maxBackoffTime`. With so many it is always the latter.
const MANY_ATTEMPTS = 20

const ADVICE = {
  1009: 'The server never takes a message, or an update, that is so large.',
  4400: 'The server could not read what was sent: please report this.',
  4401: 'Show a fresh token, then call provider.connect().',
  4403: 'This user may not do that in this room. What the server refused is not stored.',
  4404: 'The document was deleted: throw the local copy away.',
  4408: 'Call provider.connect() when somebody is back at the page.',
  4413: 'The document is as large as it may be: the server will not take more.',
  4429: 'Too much was sent for too long: send less.'
}

export class Reconnects {
  #provider
  #tokens
  #backoffMaxMs
  #failed = 0
  #stock
  #own = event => !this.#isFinal(event)
  #synced = synced => { if (synced) this.#failed = 0 }

  /**
   * @param {any} provider
   * @param {import('./tokens.js').Tokens} tokens
   */
  constructor (provider, tokens) {
    this.#provider = provider
    this.#tokens = tokens
    this.#backoffMaxMs = provider.maxBackoffTime
    this.#stock = provider.shouldReconnect
    // Since y-websocket 3.1 the provider stops by itself, when this says so.
    if (this.#stock !== undefined) provider.shouldReconnect = this.#own
    provider.on('sync', this.#synced)
  }

  /**
   * A connection is lost, or was refused: see to it that the provider comes back in time, or doesn't.
   *
   * @param {{ code: number, reason: string } | null} event
   * @return {{ code: number, reason: string, advice: string } | null} Why it doesn't come back; null if it does
   */
  closed (event) {
    const provider = this.#provider
    if (event !== null && this.#isFinal(event)) {
      provider.shouldConnect = false
      const { code, reason } = event
      return { code, reason: String(reason), advice: ADVICE[code] ?? 'The server will not take this connection again.' }
    }
    const max = Math.min(WAIT_MAX_MS * 2 ** this.#failed++, this.#backoffMaxMs)
    const min = Math.min(WAIT_MIN_MS, max)
    const wait = min + Math.random() * (max - min)
    // Not at once either: what gives tokens would be asked by all of them in the same moment.
    this.#tokens.refresh(event?.code, wait / 2)
    provider.maxBackoffTime = wait
    provider.wsUnsuccessfulReconnects = Math.max(provider.wsUnsuccessfulReconnects, MANY_ATTEMPTS)
    return null
  }

  destroy () {
    const provider = this.#provider
    provider.off('sync', this.#synced)
    provider.maxBackoffTime = this.#backoffMaxMs
    if (provider.shouldReconnect === this.#own) provider.shouldReconnect = this.#stock
  }

  /** Whether to come back would end in the same way. */
  #isFinal (event) {
    const { code } = event
    if (code === 4401 && this.#tokens.areRenewed) return false
    return code === 1009 || (this.#stock === undefined ? code >= 4400 && code < 4500 : !this.#stock(event, this.#provider))
  }
}
