/**
 * The few messages that stock providers don't know, as bytes. See docs/reference/protocol.md of crdt-sync.
 */

const SYNC = 0
const UPDATE = 2
const AUTH = 2
export const CONFIRM = 102

const DENIED = 0
const TOKEN = 1
const EXPIRES = 2

/** @param {string} token At most 64 bytes */
export const encodeConfirm = token => Uint8Array.of(CONFIRM, ...text(token))

/** @param {Uint8Array} update As a stock provider sends it */
export const encodeUpdate = update => {
  const head = [SYNC, UPDATE, ...uint(update.length)]
  const bytes = new Uint8Array(head.length + update.length)
  bytes.set(head)
  bytes.set(update, head.length)
  return bytes
}

/** @param {string} token A credential for the rest of the connection */
export const encodeToken = token => Uint8Array.of(AUTH, TOKEN, ...text(token))

/**
 * Read what a server says, as far as it matters here.
 *
 * @param {Uint8Array} bytes One frame, which holds one message
 * @return {{ kind: 'step1' | 'step2' | 'other' } | { kind: 'confirmed', token: string } | { kind: 'denied', reason: string } | { kind: 'expires', seconds: number }}
 */
export const decode = bytes => {
  const [kind, step] = bytes
  if (kind === SYNC && step === 0) return { kind: 'step1' }
  if (kind === SYNC && step === 1) return { kind: 'step2' }
  if (kind === CONFIRM) return { kind: 'confirmed', token: readText(bytes, 1) }
  if (kind === AUTH && step === DENIED) return { kind: 'denied', reason: readText(bytes, 2) }
  if (kind === AUTH && step === EXPIRES) return { kind: 'expires', seconds: readUint(bytes, 2)[0] }
  return { kind: 'other' }
}

const text = string => {
  const bytes = new TextEncoder().encode(string)
  return [...uint(bytes.length), ...bytes]
}

const uint = number => {
  const bytes = []
  for (; number > 127; number = Math.floor(number / 128)) bytes.push(number % 128 + 128)
  return [...bytes, number]
}

// Seven bits a byte, low ones first; a set high bit says that another byte follows.
const readUint = (bytes, start) => {
  let number = 0
  let factor = 1
  let end = start
  for (; bytes[end] > 127; end++, factor *= 128) number += (bytes[end] - 128) * factor
  return [number + bytes[end] * factor, end + 1]
}

const readText = (bytes, start) => {
  const [length, from] = readUint(bytes, start)
  return new TextDecoder().decode(bytes.subarray(from, from + length))
}
