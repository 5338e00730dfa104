// The versions of a document: taking one, and going back to one.
import * as api from './api.js'
import { confirm } from './dialogs.js'
import { changesShown, parse } from './diff.js'
import { h, keyed, row, say, table } from './dom.js'
import { roomHref } from './rooms.js'
import { counted, moment, name, plain, since, size } from './text.js'

const LABEL_CHARACTERS = 200
const EVERY_MS = 15_000
const COLUMNS = [{ title: 'Taken' }, { title: 'Version' }, { title: 'Written by' }, { title: 'Size', number: true }, { title: 'Do', unseen: true }]
const KINDS = { auto: 'by itself', manual: 'by hand', restore: 'before a restore' }

const called = version => h('span', {}, `version ${version.id}`, version.label === null ? null : [' “', name(version.label), '”'])

const users = names => names.length === 0 ? null
  : [names.slice(0, 4).flatMap((user, i) => [i > 0 && ', ', name(user ?? 'unknown')]), names.length > 4 ? ` and ${names.length - 4} more` : null].flat()

// Bring back what a version shows, after having shown what that would change.
export const restore = async (room, version, done) => {
  const path = api.roomPath(room, '/restore')
  const asked = { version: version.id, format: 'text' }
  const [{ changes, impossible }, { connections }] = await Promise.all([
    api.call('POST', path, { body: { ...asked, dry_run: true } }),
    api.call('GET', api.roomPath(room))
  ])
  const count = parse(changes).length
  if (count === 0 && impossible.length === 0) {
    say('The document shows that already: nothing to restore.')
    return
  }
  const anyway = h('input', { type: 'checkbox', required: true })
  let before = null
  const restored = await confirm({
    title: ['Restore ', called(version), '?'],
    verb: 'Restore',
    more: [
      h('p', {}, 'The document will show again what it showed ', h('strong', {}, moment(version.taken_at)), '. ',
        connections === 0 ? 'Nobody is connected to it by way of this node now.' : `Whoever has it open sees that happen: ${counted(connections, 'connection')} to this node now.`),
      h('p', {}, 'It is an edit like any other, made now: nothing of the past is lost. A version of what it is now is taken before, and restoring that undoes this.'),
      impossible.length === 0 ? null : h('div', { class: 'trouble' },
        h('p', {}, 'Not all of it can be brought back exactly:'), h('ul', {}, impossible.map(text => h('li', {}, plain(text)))),
        h('label', { class: 'choice' }, anyway, h('span', {}, 'Bring back what is possible'))),
      h('details', { open: count <= 3 }, h('summary', {}, `What changes: ${counted(count, 'place')}`), h('div', { class: 'preview' }, changesShown(changes)))
    ],
    act: async () => { before = await api.call('POST', path, { body: { ...asked, anyway: impossible.length > 0 } }) }
  })
  if (restored) done(before)
}

export const versionsTab = room => {
  const body = h('tbody', { role: 'rowgroup' })
  const shown = table('Versions', COLUMNS, body)
  const note = h('p', { class: 'empty', role: 'status' }, 'Loading…')
  const outcome = h('div', { class: 'outcome', role: 'status', hidden: true })
  const label = h('input', { id: 'label', maxlength: LABEL_CHARACTERS, placeholder: 'Label (kept for ever)', autocomplete: 'off' })
  const take = h('button', { type: 'submit' }, 'Take a version')

  const tell = (...content) => {
    outcome.hidden = false
    outcome.replaceChildren(...content)
  }

  const restoreTo = async (version, button) => {
    button.disabled = true
    try {
      await restore(room, version, async ({ done, version_before: before }) => {
        if (!done) tell('The document shows ', called(version), ' already.')
        else if (before === null) tell('Restored ', called(version), '.')
        else {
          const undo = h('button', { type: 'button', class: 'plain', onclick: () => restoreTo(before, undo) }, 'Undo…')
          tell('Restored ', called(version), '. What it was before is ', called(before), '. ', undo)
        }
        await refresh()
      })
    } catch (error) {
      tell(error.message)
    }
    button.disabled = false
  }

  const versionRow = version => {
    const button = h('button', { type: 'button', class: 'plain', 'data-act': 'restore', onclick: () => restoreTo(version, button) }, 'Restore…')
    return row(COLUMNS, [
      h('span', {}, moment(version.taken_at), ' ', h('small', {}, since(version.taken_at))),
      h('span', {}, h('strong', {}, version.label === null ? `${version.id}` : [`${version.id} `, name(version.label)]), ' ', h('small', {}, KINDS[version.kind] ?? plain(version.kind), version.archived ? ', archived' : null)),
      users(version.users),
      size(version.size_bytes),
      h('span', { class: 'actions' },
        h('a', { href: roomHref(room, `changes?from=${version.id}`), 'data-act': 'changes' }, 'Changes since'),
        h('a', { href: roomHref(room, `content?version=${version.id}`), 'data-act': 'read' }, 'Read'), button)
    ])
  }
  const show = keyed(body, version => version.id, versionRow)

  const refresh = async signal => {
    const { versions } = await api.call('GET', api.roomPath(room, '/versions'), { signal })
    show(versions)
    shown.hidden = versions.length === 0
    note.className = versions.length === 0 ? 'empty' : 'hint'
    note.textContent = versions.length === 0 ? 'There are no versions yet. The server takes one every few minutes while people write, and you can take one now.' : counted(versions.length, 'version')
  }

  const form = h('form', {
    class: 'tools',
    onsubmit: async event => {
      event.preventDefault()
      take.disabled = true
      try {
        const text = label.value.trim()
        const version = await api.call('POST', api.roomPath(room, '/versions'), { body: text === '' ? {} : { label: text } })
        label.value = ''
        tell('The document is kept as ', called(version), `, of ${counted(version.seq, 'update')}.`)
        await refresh()
      } catch (error) {
        tell(error.message)
      }
      take.disabled = false
    }
  }, h('label', { class: 'unseen', for: 'label' }, 'Label'), label, take)
  return { element: h('div', {}, form, outcome, note, shown), refresh, everyMs: EVERY_MS }
}
