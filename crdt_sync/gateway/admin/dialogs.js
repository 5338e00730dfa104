// Questions that have to be answered before anything is done.
import { h, say } from './dom.js'
import * as api from './api.js'

const opened = (content, properties = {}) => {
  const dialog = h('dialog', properties, content)
  document.body.append(dialog)
  dialog.addEventListener('close', () => dialog.remove())
  dialog.showModal()
  return dialog
}

// Ask whether to do something. `act` does it; while it fails, the dialog stays and says why. `more` are elements of the
// question. Returns whether it was done.
export const confirm = ({ title, verb, act, more = [], danger = false }) => new Promise(resolve => {
  let done = false
  const trouble = h('p', { class: 'trouble', role: 'alert', hidden: true })
  const go = h('button', { type: 'submit', class: danger ? 'danger' : 'primary' }, verb)
  const dialog = opened(h('form', {
    onsubmit: async event => {
      event.preventDefault()
      go.disabled = true
      trouble.hidden = true
      try {
        await act()
        done = true
        dialog.close()
      } catch (error) {
        trouble.textContent = error.message
        trouble.hidden = false
        go.disabled = false
        go.focus()
      }
    }
  },
  h('h2', { id: 'question' }, title), more, trouble,
  h('div', { class: 'buttons' }, h('button', { type: 'button', onclick: () => dialog.close() }, 'Cancel'), go)), { 'aria-labelledby': 'question' })
  dialog.addEventListener('close', () => resolve(done))
})

const REASONS = {
  'credential missing': 'This server has keys, so it wants to know who you are.',
  'credential expired': 'Your token has expired. Nothing on this page is lost: give a fresh one and go on.',
  'credential invalid': 'The server doesn\'t take this token: it is cut short, or not signed with a key that the server has.'
}

const explained = ({ status, title, message }) => {
  if (status === 403) return 'This token is good, but gives no admin right in “*”, which this page needs.'
  if (status === 401) return REASONS[title] ?? `The server doesn't take this token: ${title}.`
  return message
}

// Ask for a token until there is a good one. Returns whether there is.
export const askForToken = problem => new Promise(resolve => {
  let good = false
  const why = h('p', { id: 'why' }, explained(problem))
  const trouble = h('p', { class: 'trouble', role: 'alert', hidden: true })
  const input = h('input', { id: 'token', type: 'password', autocomplete: 'off', spellcheck: 'false', required: true, 'aria-describedby': 'why' })
  const go = h('button', { type: 'submit', class: 'primary' }, 'Sign in')
  const dialog = opened(h('form', {
    onsubmit: async event => {
      event.preventDefault()
      go.disabled = true
      const shown = input.value.trim().replace(/^Bearer\s+/i, '')
      let found
      try {
        // Headers hold nothing else, and tokens neither.
        found = /^[\x21-\x7e]+$/.test(shown) ? await api.tryOut(shown) : new api.Problem(401, 'credential invalid')
      } catch (error) {
        found = error
      }
      go.disabled = false
      if (found !== null) {
        trouble.textContent = explained(found)
        trouble.hidden = false
        input.select()
        return
      }
      api.keep(shown)
      good = true
      dialog.close()
      say('Signed in.')
    }
  },
  h('h2', { id: 'sign-in' }, 'Sign in'), why,
  h('label', { for: 'token' }, 'Token with the admin right in “*”'), input, trouble,
  h('p', { class: 'hint' }, 'Whoever has the server\'s secret can make one:'),
  h('pre', { tabindex: 0 }, 'crdt-sync token --user you --room \'*=admin\' --ttl 1h'),
  h('p', { class: 'hint' }, 'It is kept in this tab until you sign out or close it.'),
  h('div', { class: 'buttons' }, h('button', { type: 'button', onclick: () => dialog.close() }, 'Not now'), go)), { 'aria-labelledby': 'sign-in' })
  dialog.addEventListener('close', () => resolve(good))
})
