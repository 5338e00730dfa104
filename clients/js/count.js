/**
 * How many edits aren't stored, kept where it outlives the page. Tabs of one browser share it, so it is only added to.
 */
export class Count {
  #storage
  #key

  /**
   * @param {import('./index.js').ConfirmStorage | undefined} storage
   * @param {string} key
   */
  constructor (storage, key) {
    this.#storage = storage
    this.#key = key
    /** What an earlier page left. */
    this.inherited = this.#read()
  }

  /** @param {number} difference */
  add (difference) {
    if (this.#storage === undefined || difference === 0) return
    const count = Math.max(0, this.#read() + difference)
    try {
      if (count === 0) this.#storage.removeItem(this.#key)
      else this.#storage.setItem(this.#key, String(count))
    } catch {
      // It is full, or forbidden: then the count doesn't outlive the page.
    }
  }

  #read () {
    try {
      const count = Number(this.#storage?.getItem(this.#key) ?? 0)
      return Number.isSafeInteger(count) && count > 0 ? count : 0
    } catch {
      return 0
    }
  }
}
