/**
 * Edits of this browser's other tabs, which a provider hears of beside its server (BroadcastChannel).
 *
 * The tab where they were made sends them. If it can't, and is closed, they are only here: then this tab sends them.
 */

import { later } from './timers.js'

const SYNC = 0
const UPDATE = 2

// The other tab's edits come back from the server sooner than that, if it has sent them.
const PATIENCE_MS = 1000

export class Tabs {
  /**
   * `frame` as the other tab has sent it, `update` what was news here.
   * @type {{ frame: Uint8Array, update: Uint8Array }[]}
   */
  #held = []
  /** @type {Uint8Array | null} */
  #frame = null
  #timer
  #due
  #cleanup

  /** Whether the server had time enough to show what this tab hasn't sent. */
  isDue = false

  /**
   * @param {any} provider
   * @param {() => void} due Called when something is to be sent by this tab
   */
  constructor (provider, due) {
    this.#due = due
    const stock = provider.messageHandlers[SYNC]
    const watched = (encoder, decoder, provider, isServer, type) => {
      this.#frame = isServer ? null : decoder.arr
      try {
        stock(encoder, decoder, provider, isServer, type)
      } finally {
        this.#frame = null
      }
    }
    provider.messageHandlers[SYNC] = watched
    this.#cleanup = () => { if (provider.messageHandlers[SYNC] === watched) provider.messageHandlers[SYNC] = stock }
  }

  /** Whether what is heard of right now comes from another tab. */
  get isHeard () {
    return this.#frame !== null
  }

  /** Whether the server may lack something that this tab hasn't sent. */
  get isHolding () {
    return this.#held.length > 0
  }

  /**
   * Another tab's edit arrived.
   *
   * @param {Uint8Array} update
   */
  hold (update) {
    this.#held.push({ frame: this.#frame ?? update, update })
    if (this.#held.length > 1) return
    this.isDue = false
    this.#timer = later(() => {
      this.isDue = true
      this.#due()
    }, PATIENCE_MS)
  }

  /**
   * The server has relayed something. Unless it had to be merged with others, it is what the other tab has sent.
   *
   * @param {Uint8Array} frame
   */
  relayed (frame) {
    if (this.#held.length === 0 || frame[0] !== SYNC || frame[1] !== UPDATE) return
    this.#held = this.#held.filter(held => held.frame.length !== frame.length || held.frame.some((byte, index) => byte !== frame[index]))
    if (this.#held.length === 0) clearTimeout(this.#timer)
  }

  /** @return {Uint8Array[]} The updates that the server hasn't shown */
  take () {
    clearTimeout(this.#timer)
    const held = this.#held
    this.#held = []
    return held.map(({ update }) => update)
  }

  destroy () {
    this.#cleanup()
    clearTimeout(this.#timer)
  }
}
