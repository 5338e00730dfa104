// All documents, by name.
import * as api from './api.js'
import { h, keyed, row, table } from './dom.js'
import { counted, name, number, plain, size } from './text.js'

const PAGE = 100
const PAGE_MAX = 1000 // of the API
// Searching passes many documents by.
const EVERY_MS = 15_000
const COLUMNS = [{ title: 'Room' }, { title: 'Here', number: true }, { title: 'Work', number: true }, { title: 'Updates', number: true }, { title: 'Size', number: true }]

export const roomHref = (room, tab = '') => `#/rooms/${encodeURIComponent(room)}${tab && `/${tab}`}`

export const roomLink = room => h('a', { href: roomHref(room), 'data-act': 'open' }, name(room))

const roomRow = room => row(COLUMNS, [
  roomLink(room.name),
  room.connections === 0 ? null : number(room.connections),
  room.work === undefined || room.work < 0.005 ? null : `${Math.round(room.work * 100)} %`,
  number(room.seq),
  room.bytes === null ? null : size(room.bytes)
])

export const roomsView = query => {
  let text = query.get('contains') ?? ''
  let paged = false // whether more than the first page was asked for
  let rooms = []
  let next = null
  const search = h('input', { type: 'search', id: 'contains', value: text, placeholder: 'Part of a name', autocomplete: 'off', spellcheck: 'false' })
  const body = h('tbody', { role: 'rowgroup' })
  const show = keyed(body, room => room.name, roomRow)
  const shown = table('Rooms', COLUMNS, body)
  const empty = h('p', { class: 'empty' }, 'Loading…')
  const more = h('button', { type: 'button', hidden: true }, 'Show more')
  const open = h('input', { type: 'checkbox', id: 'open', checked: query.has('open') })
  const count = h('p', { class: 'hint', role: 'status' })
  const element = h('div', {},
    h('div', { class: 'heading' }, h('h1', {}, 'Rooms'),
      h('form', { role: 'search', onsubmit: event => event.preventDefault() }, 
        h('label', { class: 'choice' }, open, 'Open here, the busiest first'),
        h('label', { class: 'unseen', for: 'contains' }, 'Search'), search)),
    empty, shown, count, h('div', { class: 'buttons' }, more))

  const ask = async (limit, after, signal) => {
    if (open.checked) {
      const { rooms } = await api.call('GET', `open?limit=${PAGE_MAX}`, { signal })
      return { rooms: rooms.filter(({ name }) => name.includes(text)), next: null }
    }
    const asked = new URLSearchParams({ limit, contains: text, after })
    return api.call('GET', `rooms?${asked}`, { signal })
  }

  const draw = () => {
    show(rooms)
    shown.hidden = rooms.length === 0
    more.hidden = next === null
    empty.hidden = rooms.length > 0
    empty.textContent = next !== null
      ? `Nothing up to “${plain(next)}” is called so. There are more to look through.`
      : text ? `No ${open.checked ? 'open ' : ''}room has “${plain(text)}” in its name.`
        : open.checked ? 'No room is open on this node.' : 'There are no documents yet. They appear when clients connect and write something.'
    more.textContent = rooms.length === 0 ? 'Go on searching' : 'Show more'
    count.textContent = rooms.length === 0 ? '' : `${counted(rooms.length, 'room')}${next === null ? '' : ', and more'}. “Here” counts connections to this node. Sizes are known of rooms that are open on it.`
  }

  const selected = () => `${open.checked} ${text}`

  const refresh = async signal => {
    // Who searched on is further than a fresh answer would be, and what is beyond a page of the API stays as it was.
    if (paged && (text !== '' || rooms.length > PAGE_MAX)) return
    const asked = selected()
    const answer = await ask(Math.max(PAGE, rooms.length), '', signal)
    if (asked !== selected()) return
    rooms = answer.rooms
    next = answer.next
    draw()
  }

  more.addEventListener('click', async () => {
    more.disabled = true
    paged = true
    const asked = selected()
    try {
      const answer = await ask(PAGE, next)
      if (asked === selected()) {
        rooms = rooms.concat(answer.rooms)
        next = answer.next
        draw()
      }
    } catch (error) {
      count.textContent = error.message
    }
    more.disabled = false
  })
  const select = async () => {
    text = search.value.trim()
    rooms = []
    paged = false
    // Without another entry in the history for each letter, and there again when one comes back.
    const chosen = new URLSearchParams({ ...(text && { contains: text }), ...(open.checked && { open: 1 }) })
    history.replaceState(null, '', chosen.size > 0 ? `#/rooms?${chosen}` : '#/rooms')
    try {
      await refresh()
    } catch (error) {
      count.textContent = error.message
    }
  }
  let typing
  search.addEventListener('input', () => {
    clearTimeout(typing)
    typing = setTimeout(select, 200)
  })
  open.addEventListener('change', select)
  return { title: 'Rooms', element, refresh, get everyMs () { return text === '' || open.checked ? 0 : EVERY_MS } }
}
