// Who is connected to this node, and sending somebody away.
import * as api from './api.js'
import { confirm } from './dialogs.js'
import { h, keyed, row, say, table } from './dom.js'
import { roomLink } from './rooms.js'
import { counted, name, number, since, size } from './text.js'

const SHOWN = 200
const COLUMNS = [{ title: 'User' }, { title: 'Room' }, { title: 'Address' }, { title: 'Since' }, { title: 'May' }, { title: 'Waiting', number: true }, { title: 'Refused', number: true }, { title: 'Do', unseen: true }]

const who = user => user === null ? h('em', {}, 'not known') : name(user)

const close = (one, done) => {
  const choice = (value, title, text, checked) => h('label', { class: 'choice' },
    h('input', { type: 'radio', name: 'code', value, checked }), h('span', {}, h('strong', {}, title), h('br'), text))
  const choices = h('fieldset', {}, h('legend', { class: 'unseen' }, 'What the client is told'),
    choice('4403', 'Not to come back', 'Closes with 4403. Recent stock clients stop until their page is loaded again, older ones come back. To keep somebody out, revoke their token.', true),
    choice('1012', 'To come back', 'Closes with 1012, as if the server restarted. Stock clients connect again at once.', false))
  return confirm({
    title: 'Close this connection?',
    verb: 'Close it',
    danger: true,
    more: [h('p', {}, who(one.user), ' in ', name(one.room), `, from ${one.address ?? 'an unknown address'}.`), choices],
    act: async () => {
      const code = choices.querySelector('input:checked').value
      try {
        await api.call('DELETE', `connections/${one.id}?${new URLSearchParams({ code, since: one.since })}`)
      } catch (error) {
        if (error.status !== 404) throw error
        throw new api.Problem(404, error.title, 'Who answered doesn\'t know this connection: it is gone, or another process of this node has it: then try again.')
      }
      say('The connection is closed.')
      done()
    }
  })
}

// A list of connections: {element, show(connections)}. `inRoom`: they are all in one room; `closed` is called after one was closed.
export const connectionList = ({ inRoom, closed }) => {
  const columns = inRoom ? COLUMNS.filter(({ title }) => title !== 'Room') : COLUMNS
  const body = h('tbody', { role: 'rowgroup' })
  const update = keyed(body, one => one.id, one => row(columns, [
    who(one.user),
    ...(inRoom ? [] : [roomLink(one.room)]),
    one.address,
    since(one.since),
    one.may_write ? 'read and write' : 'read',
    one.outbox_bytes === 0 ? null : size(one.outbox_bytes),
    one.refused_updates === 0 ? null : number(one.refused_updates),
    h('button', { type: 'button', class: 'plain', 'data-act': 'close', onclick: () => close(one, closed) }, 'Close…')
  ]))
  const shown = table('Connections', columns, body)
  const note = h('p', { class: 'hint', role: 'status' })
  return {
    element: h('div', {}, shown, note),
    show: (connections, none, open = connections.length) => {
      update(connections.slice(0, SHOWN))
      shown.hidden = connections.length === 0
      note.className = connections.length === 0 ? 'empty' : 'hint'
      note.textContent = connections.length === 0 ? none
        : connections.length > SHOWN ? `The first ${SHOWN}: search for the others. ${counted(open, 'connection')} to this node`
          : counted(open, 'connection') + ' to this node'
    }
  }
}

export const connectionsView = () => {
  const search = h('input', { type: 'search', id: 'find', placeholder: 'Part of user, room or address', autocomplete: 'off', spellcheck: 'false' })
  const order = h('select', { id: 'order' }, h('option', { value: 'id' }, 'Oldest first'), h('option', { value: 'outbox' }, 'Most waiting first'))
  const list = connectionList({ inRoom: false, closed: () => refresh().catch(() => {}) })

  const refresh = async signal => {
    const text = search.value.trim()
    const asked = new URLSearchParams({ contains: text, order: order.value, limit: SHOWN + 1 })
    const { connections, open } = await api.call('GET', `connections?${asked}`, { signal })
    if (text !== search.value.trim()) return
    list.show(connections, text === '' ? 'Nobody is connected to this node.' : 'No connection is like that.', open)
  }
  const select = () => refresh().catch(error => list.show([], error.message))
  let typing
  search.addEventListener('input', () => {
    clearTimeout(typing)
    typing = setTimeout(select, 200)
  })
  order.addEventListener('change', select)
  list.show([], 'Loading…')
  const element = h('div', {},
    h('div', { class: 'heading' }, h('h1', {}, 'Connections'),
      h('form', { role: 'search', onsubmit: event => event.preventDefault() },
        h('label', { class: 'unseen', for: 'order' }, 'Order'), order, h('label', { class: 'unseen', for: 'find' }, 'Search'), search)),
    list.element)
  return { title: 'Connections', element, refresh }
}
