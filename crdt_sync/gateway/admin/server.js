// How this node is: may it get traffic, how busy it is, and sending its clients elsewhere.
import * as api from './api.js'
import { chart } from './charts.js'
import { confirm } from './dialogs.js'
import { h, say } from './dom.js'
import { gauge, labels, missing, most, points, workers } from './scrapes.js'
import { lines, number, plain, seconds, size } from './text.js'

const perSecond = value => `${value < 10 ? Number(value.toFixed(1)) : number(Math.round(value))}/s`

const charts = () => [
  chart({ title: 'Connections', series: [{ name: null, of: one => one.connections }], format: value => number(Math.round(value)), least: 2 }),
  chart({ title: 'Messages', series: [{ name: 'in', of: one => one.in }, { name: 'out', of: one => one.out }], format: perSecond, least: 1 }),
  chart({
    title: 'Until stored, p99',
    hint: 'In 99 of 100 cases it took no longer: to commit to the store, and from an edit\'s arrival until it was committed and confirmed.',
    series: [{ name: 'commit', of: one => one.commit }, { name: 'confirm', of: one => one.confirm }],
    format: seconds,
    least: 0.01
  }),
  chart({ title: 'Not stored yet', hint: 'Edits that were accepted and wait for their commit.', series: [{ name: null, of: one => one.backlog }], format: size, least: 1000 }),
  chart({ title: 'Event loop lag, p99', hint: 'How late the server gets to what it wants to do next.', series: [{ name: null, of: one => one.lag }], format: seconds, least: 0.01 }),
  chart({ title: 'Memory', series: [{ name: null, of: one => one.memory }], format: size, least: 1e6 })
]

const fact = (title, value) => h('div', {}, h('dt', {}, title), h('dd', {}, value))

const reasons = (kind, told) => Object.entries(told ?? {}).map(([part, text]) =>
  h('li', { class: kind }, h('strong', {}, plain(part)), ` ${lines(typeof text === 'string' ? text : JSON.stringify(text))}`))

// Whether this server can be told to drain, which is asked once.
let drains = null
const canDrain = async signal => {
  const { paths } = await api.call('GET', 'openapi.json', { signal })
  return '/api/v1/drain' in paths
}

const drain = () => confirm({
  title: 'Drain this node?',
  verb: 'Drain',
  danger: true,
  more: [
    h('p', {}, 'It takes nobody any more, sends its clients away over some seconds (they connect again by themselves, to another node if there is one), stores what is left, and ends.'),
    h('p', {}, 'Whatever started it decides whether it comes back. This can\'t be undone here.')
  ],
  act: async () => {
    await api.call('POST', 'drain')
    say('This node is draining.')
  }
})

export const serverView = () => {
  const drawn = charts()
  const state = h('h1', { class: 'state' }, 'Asking the server…')
  const why = h('ul', { class: 'reasons', hidden: true })
  const facts = h('dl', { class: 'facts' })
  const button = h('button', { type: 'button', hidden: true, onclick: drain }, 'Drain…')
  const note = h('p', { class: 'empty', hidden: true })
  const grid = h('div', { class: 'charts' }, drawn.map(({ element }) => element))
  const element = h('div', {}, h('section', { class: 'status' }, h('div', { class: 'heading' }, state, button), why, facts), note, grid)

  const showReady = async answer => {
    const { ready, problems, warnings } = await answer.json()
    const draining = gauge('draining') > 0 || Object.values(problems ?? {}).includes('draining') || 'draining' in (problems ?? {})
    const found = reasons('bad', problems).concat(reasons('doubtful', warnings))
    state.textContent = ready ? 'Ready' : draining ? 'Draining' : 'Not ready'
    state.className = `state ${ready ? (found.length ? 'doubtful' : 'good') : 'bad'}`
    why.replaceChildren(...found)
    why.hidden = found.length === 0
    button.disabled = draining
  }

  const showFacts = () => {
    const { version } = labels('build_info')
    const known = [
      gauge('connections') !== null && fact('Connections', number(gauge('connections'))),
      gauge('rooms') !== null && fact('Open rooms', number(gauge('rooms'))),
      most('load_level') > 0 && fact('Load level', `${most('load_level')} of 3`),
      most('workers_missing') > 0 && fact('Processes that don\'t answer', number(most('workers_missing'))),
      workers() > 1 && fact('Processes', number(workers())),
      version !== undefined && fact('Version', plain(version))
    ].filter(Boolean)
    facts.replaceChildren(...known)
    note.hidden = missing() === null
    note.textContent = missing() ?? ''
    grid.hidden = missing() !== null && points.length === 0
    if (workers() > 1) grid.setAttribute('aria-label', `Of ${workers()} processes together`)
    for (const { draw } of drawn) draw(points)
  }

  return {
    title: 'Server',
    element,
    refresh: async signal => {
      await api.check(signal)
      drains ??= await canDrain(signal)
      button.hidden = !drains
      const answer = await api.look('ready', { signal })
      if (answer.headers.get('content-type')?.startsWith('application/json')) await showReady(answer)
      else state.textContent = 'Running'
      showFacts()
    }
  }
}
