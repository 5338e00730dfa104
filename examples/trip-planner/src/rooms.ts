// Which trip a link is to: `?trip=lisbon` is the room `trip-lisbon`. `?new` makes one, and no query is the example.
import { EXAMPLE_ROOM } from './example'

const PREFIX = 'trip-'
const FOUNDED = 'trip-planner:founded'

/** The room of a page's query; null if that is no link to a trip. Begins a new trip if asked to. */
export function roomOf(query: string): string | null {
  const asked = new URLSearchParams(query)
  if (asked.has('new')) {
    const id = [...crypto.getRandomValues(new Uint8Array(8))].map(byte => (byte % 36).toString(36)).join('')
    sessionStorage.setItem(FOUNDED, PREFIX + id)
    history.replaceState(null, '', `?trip=${id}`)
    return PREFIX + id
  }
  const id = asked.get('trip')
  if (id === null) return EXAMPLE_ROOM
  return /^[\p{L}\p{N}_.-]{1,60}$/u.test(id) ? PREFIX + id : null
}

export const roomUrl = (room: string) => `${location.origin}/?trip=${encodeURIComponent(room.slice(PREFIX.length))}`

/** Whether this window has begun this trip; says so once. */
export function takeFounding(room: string): boolean {
  const mine = sessionStorage.getItem(FOUNDED) === room
  if (mine) sessionStorage.removeItem(FOUNDED)
  return mine
}
