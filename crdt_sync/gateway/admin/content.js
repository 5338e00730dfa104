// What a document contains, now or as a version has it.
import * as api from './api.js'
import { h } from './dom.js'
import { roomHref } from './rooms.js'
import { lines, plain, size } from './text.js'

// What more of it would make slow, and nobody reads.
const SHOWN = 200_000
const FORMS = [['text', 'Text'], ['json', 'JSON'], ['rich', 'JSON with types']]

const printed = (text, form) => {
  if (form === 'text') return text
  try {
    return JSON.stringify(JSON.parse(text), null, 2)
  } catch {
    return text // nested too deeply
  }
}

const save = (bytes, filename) => {
  const url = URL.createObjectURL(bytes)
  h('a', { href: url, download: filename }).click()
  setTimeout(() => URL.revokeObjectURL(url), 60_000)
}

export const contentTab = (room, query) => {
  const version = query.get('version')
  const what = version === null ? '/document' : `/versions/${encodeURIComponent(version)}`
  let form = FORMS.some(([id]) => id === query.get('format')) ? query.get('format') : 'text'
  let asked = null
  const choice = h('select', { id: 'form' }, FORMS.map(([id, title]) => h('option', { value: id, selected: id === form }, title)))
  const again = h('button', { type: 'button' }, 'Read again')
  const download = h('button', { type: 'button', disabled: true }, 'Download')
  const note = h('p', { class: 'empty', role: 'status' }, 'Reading…')
  const text = h('pre', { class: 'content', tabindex: 0, 'aria-label': 'Content' })
  let whole = null
  const element = h('div', {},
    version === null ? null : h('p', { class: 'hint' }, `As it was in version ${plain(version)}. `, h('a', { href: roomHref(room, 'content') }, 'Read what it is now')),
    h('div', { class: 'tools' }, h('label', { for: 'form' }, 'As'), choice, again, download), note, text)

  const read = async signal => {
    const wanted = asked = form
    let answer
    try {
      answer = await api.call('GET', api.roomPath(room, `${what}?format=${form}`), { signal, raw: true })
    } catch (error) {
      if (asked === wanted) asked = null
      throw error
    }
    const bytes = await answer.blob()
    if (asked !== wanted) return
    whole = bytes
    const all = printed(await bytes.text(), form)
    text.textContent = lines(all.slice(0, SHOWN))
    text.hidden = all.trim() === ''
    note.className = text.hidden ? 'empty' : 'hint'
    note.textContent = text.hidden ? 'The document is empty.'
      : all.length > SHOWN ? `The beginning of ${size(bytes.size)}: download it for the rest.` : size(bytes.size)
    download.disabled = text.hidden
  }

  const readNow = async () => {
    note.textContent = 'Reading…'
    try {
      await read()
    } catch (error) {
      note.textContent = error.message
    }
  }
  choice.addEventListener('change', () => {
    form = choice.value
    readNow()
  })
  again.addEventListener('click', readNow)
  download.addEventListener('click', () => save(whole, `${room.replace(/[^\w.-]+/g, '_')}.${form === 'text' ? 'txt' : 'json'}`))
  // Read once: what somebody reads shouldn't change under their eyes, and reading costs the server something.
  return { element, refresh: async signal => { if (asked === null) await read(signal) } }
}
