/**
 * Do something later; in Node, waiting for that keeps no process alive.
 *
 * @param {() => void} work
 * @param {number} ms
 * @return {any} For `clearTimeout`
 */
export const later = (work, ms) => {
  const timer = /** @type {any} */ (setTimeout(work, ms))
  timer.unref?.()
  return timer
}
