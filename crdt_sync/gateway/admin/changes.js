// What differs between two points in a document's past, and by whom.
import * as api from './api.js'
import { changesShown } from './diff.js'
import { h } from './dom.js'
import { roomHref } from './rooms.js'
import { moment, plain, shortened } from './text.js'

const choiceOf = version => h('option', { value: version.id },
  `${version.id} · ${moment(version.taken_at)}${version.label === null ? '' : ` · ${plain(shortened(version.label, 40))}`}`)

export const changesTab = (room, query) => {
  const from = h('select', { id: 'from' })
  const to = h('select', { id: 'to' })
  const note = h('p', { class: 'empty', role: 'status' }, 'Loading…')
  const shown = h('div', {})
  const tools = h('div', { class: 'tools' }, h('label', { for: 'from' }, 'From'), from, h('label', { for: 'to' }, 'to'), to)
  let loaded = false

  const compare = async signal => {
    const asked = [from.value, to.value].join()
    const points = new URLSearchParams({ from: from.value, to: to.value, format: 'text' })
    note.hidden = false
    note.textContent = 'Comparing…'
    shown.replaceChildren()
    const answer = await api.call('GET', api.roomPath(room, `/diff?${points}`), { signal, raw: true })
    const text = await answer.text()
    if (asked !== [from.value, to.value].join()) return
    note.hidden = text !== ''
    note.textContent = 'Nothing differs.'
    shown.replaceChildren(changesShown(text))
  }
  const compareNow = async () => {
    history.replaceState(null, '', roomHref(room, `changes?${new URLSearchParams({ from: from.value, to: to.value })}`))
    try {
      await compare()
    } catch (error) {
      note.textContent = error.message
    }
  }
  from.addEventListener('change', compareNow)
  to.addEventListener('change', compareNow)

  const refresh = async signal => {
    if (loaded) return
    const { versions } = await api.call('GET', api.roomPath(room, '/versions'), { signal })
    tools.hidden = versions.length === 0
    if (versions.length === 0) {
      note.textContent = 'There are no versions to compare with yet.'
      return
    }
    from.replaceChildren(...versions.map(choiceOf))
    to.replaceChildren(h('option', { value: 'now' }, 'now'), ...versions.map(choiceOf))
    const wanted = (choices, id) => { if ([...choices.options].some(({ value }) => value === id)) choices.value = id }
    wanted(from, query.get('from'))
    wanted(to, query.get('to'))
    await compare(signal)
    loaded = true
  }
  return { element: h('div', {}, tools, note, shown), refresh }
}
