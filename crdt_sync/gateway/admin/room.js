// One room: who is in it, what it contains, and its past.
import * as api from './api.js'
import { changesTab } from './changes.js'
import { connectionList } from './connections.js'
import { contentTab } from './content.js'
import { h, keyed } from './dom.js'
import { roomHref } from './rooms.js'
import { lines, name, number, plain, shortened, size } from './text.js'
import { versionsTab } from './versions.js'

const STATE_CHARACTERS = 2000

const told = value => typeof value === 'string' && value.trim() !== '' ? value : null

const person = ({ client, state }) => {
  const user = state !== null && typeof state === 'object' && state.user !== null && typeof state.user === 'object' ? state.user : {}
  const dot = h('span', { class: 'dot', 'aria-hidden': 'true' })
  // What is no colour isn't taken.
  if (typeof user.color === 'string') dot.style.backgroundColor = user.color
  const title = told(user.name) ?? told(user.id)
  let whole
  try {
    whole = shortened(JSON.stringify(state, null, 2), STATE_CHARACTERS)
  } catch {
    whole = 'It is nested too deeply to be shown.'
  }
  return h('li', {},
    h('details', {},
      h('summary', { 'data-act': 'open' }, dot, title === null ? h('em', {}, 'Somebody without a name') : name(shortened(title, 120)),
        h('small', {}, told(user.id) !== null && user.id !== title ? [name(shortened(user.id, 120)), ' · '] : null, `client ${client}`)),
      h('pre', { tabindex: 0 }, lines(whole))))
}

const peopleTab = room => {
  const list = h('ul', { class: 'people' })
  const show = keyed(list, one => one.client, person)
  const note = h('p', { class: 'empty' }, 'Loading…')
  return {
    element: h('div', {}, note, list),
    refresh: async signal => {
      const { clients } = await api.call('GET', api.roomPath(room, '/presence'), { signal })
      // The clock counts renewals, and would make everybody new every 15 s.
      show(clients.filter(({ state }) => state !== null).map(({ client, state }) => ({ client, state })))
      list.hidden = list.children.length === 0
      note.className = list.hidden ? 'empty' : 'hint'
      note.textContent = list.hidden ? 'Nobody shows themselves here. Clients that are connected without presence are below Connections.' : 'On any node, as their clients show them'
    }
  }
}

const connectionsTab = room => {
  const list = connectionList({ inRoom: true, closed: () => refresh().catch(() => {}) })
  list.show([], 'Loading…')
  const refresh = async signal => {
    const { connections } = await api.call('GET', api.roomPath(room, '/connections'), { signal })
    list.show(connections, 'No client is connected to this room by way of this node.')
  }
  return { element: list.element, refresh }
}

const TABS = [
  { id: '', title: 'People', make: peopleTab },
  { id: 'connections', title: 'Connections', make: connectionsTab },
  { id: 'versions', title: 'Versions', make: versionsTab },
  { id: 'changes', title: 'Changes', make: changesTab },
  { id: 'content', title: 'Content', make: contentTab }
]

const GONE = {
  'no such document': 'There is no such document: nothing was ever written to it.',
  'document deleted': 'This document was deleted. The command line can bring it back: crdt-sync rooms undelete.'
}

const fact = (title, value) => h('div', {}, h('dt', {}, title), h('dd', {}, value))

export const roomView = (room, tab, query) => {
  const chosen = TABS.find(({ id }) => id === tab) ?? TABS[0]
  const facts = h('dl', { class: 'facts' })
  const { element: content, refresh, everyMs } = chosen.make(room, query)
  const element = h('div', {},
    h('p', { class: 'back' }, h('a', { href: '#/rooms' }, '← Rooms')),
    h('h1', {}, name(room)), facts,
    h('nav', { class: 'tabs', 'aria-label': `Room ${plain(room)}` }, TABS.map(({ id, title }) =>
      h('a', { href: roomHref(room, id), 'aria-current': id === chosen.id ? 'page' : null }, title))),
    content)
  return {
    title: room,
    element,
    everyMs,
    refresh: async signal => {
      const path = api.roomPath(room)
      try {
        // What is shown below may open the room, and then its size is known.
        await refresh(signal)
        const { seq, connections, bytes } = await api.call('GET', path, { signal })
        facts.replaceChildren(
          fact('Connections here', number(connections)), fact('Updates', number(seq)),
          fact('Size', bytes === null ? 'not known' : size(bytes)))
      } catch (error) {
        if (!(error.title in GONE)) throw error
        facts.replaceChildren()
        content.replaceChildren(h('p', { class: 'empty' }, GONE[error.title]))
      }
    }
  }
}
