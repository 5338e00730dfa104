// The page: which view is shown, what keeps it fresh, and what is said when the server gives no answer.
//
// A view is {title, element, refresh, everyMs}: `refresh(signal)` brings it up to date, and is called every so often, by
// default with every scrape of the metrics, while somebody looks.
import * as api from './api.js'
import { connectionsView } from './connections.js'
import { askForToken } from './dialogs.js'
import { h } from './dom.js'
import { roomView } from './room.js'
import { roomsView } from './rooms.js'
import { collect } from './scrapes.js'
import { serverView } from './server.js'
import { freshen, plain } from './text.js'

const REFRESH_MS = 3000

const main = document.getElementById('main')
const trouble = document.getElementById('trouble')
const signOut = document.getElementById('sign-out')

let view = null
let leaving = new AbortController()
let wanted = false // whether to refresh at once, and not only when it is time
let wake = () => {}
let refreshedAt = 0

// `#/rooms/a%2Fb/versions?from=1` is { steps: ['rooms', 'a/b', 'versions'], query }.
const place = () => {
  const [path, query = ''] = location.hash.replace(/^#?\/?/, '').split('?', 2)
  const steps = path.split('/').filter(Boolean).map(step => {
    try { return decodeURIComponent(step) } catch { return step }
  })
  return { steps, query: new URLSearchParams(query) }
}

const viewOf = ({ steps: [what, room, tab], query }) => {
  if (what === 'rooms' && room !== undefined) return roomView(room, tab, query)
  if (what === 'rooms') return roomsView(query)
  if (what === 'connections') return connectionsView()
  return serverView()
}

const show = () => {
  const here = place()
  leaving.abort()
  leaving = new AbortController()
  view = viewOf(here)
  main.replaceChildren(view.element)
  document.title = `${plain(view.title)} · crdt-sync`
  for (const link of document.querySelectorAll('nav[aria-label=Main] a')) {
    const leads = link.getAttribute('href').replace(/^#\/?/, '') === (here.steps[0] ?? '')
    if (leads) link.setAttribute('aria-current', 'page')
    else link.removeAttribute('aria-current')
  }
  // Where there isn't room for all tabs.
  document.querySelector('.tabs [aria-current]')?.scrollIntoView({ block: 'nearest', inline: 'center' })
  refreshSoon()
}

const refreshSoon = () => {
  wanted = true
  wake()
}

const complain = error => {
  const known = error instanceof api.Problem
  if (!known) console.error(error)
  const text = known
    ? (error.status === 401 ? 'You are not signed in, so nothing here is up to date.' : error.message)
    : 'Something went wrong on this page: reload it, and if that doesn\'t help, tell its authors.'
  const [what, act] = error.status === 401 || error.status === 403
    ? ['Sign in', async () => { if (await api.signIn(error)) refreshSoon() }]
    : ['Try again', refreshSoon]
  if (trouble.dataset.text !== text) {
    trouble.dataset.text = text
    trouble.replaceChildren(h('span', {}, text), h('button', { type: 'button', class: 'plain', onclick: act }, what))
  }
  trouble.hidden = false
  return error.status === 401
}

const appeased = () => {
  trouble.hidden = true
  delete trouble.dataset.text
}

const keepFresh = async () => {
  for (;;) {
    const { signal } = leaving
    const due = wanted || Date.now() >= refreshedAt + (view.everyMs ?? 0)
    wanted = false
    let waiting = false
    try {
      // What is seen on a chart goes on being noted while another view is shown.
      await Promise.all([due ? view.refresh(signal) : null, collect(signal)])
      if (due && !signal.aborted) {
        refreshedAt = Date.now()
        appeased()
      }
    } catch (error) {
      refreshedAt = 0
      if (!signal.aborted) waiting = complain(error)
    }
    signOut.hidden = !api.hasToken()
    freshen()
    if (wanted) continue
    await new Promise(resolve => {
      wake = resolve
      // Who doesn't want to sign in isn't asked every few seconds.
      if (!waiting) setTimeout(() => { if (!document.hidden) resolve() }, REFRESH_MS)
    })
  }
}

signOut.addEventListener('click', () => {
  api.forget()
  location.reload() // what was shown goes with it
})
api.onTokenWanted(askForToken)
addEventListener('hashchange', () => {
  show()
  main.focus({ preventScroll: true })
  scrollTo(0, 0)
})
addEventListener('visibilitychange', () => { if (!document.hidden) refreshSoon() })
show()
keepFresh()
