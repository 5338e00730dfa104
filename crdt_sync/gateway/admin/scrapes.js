// What `/metrics` said during the last minutes, as points of charts.
import * as api from './api.js'
import { buckets, parse, quantile, rate, sum } from './metrics.js'

const KEPT_MS = 10 * 60 * 1000
// Where there are none, they seldom appear.
const AGAIN_MS = 30_000
// So many scrapes back, rates and quantiles begin: one observation more or less shouldn't show as a jump.
const WINDOW = 4

const P = 'crdt_sync_'
const HISTOGRAMS = ['commit_seconds', 'confirm_seconds', 'loop_lag_seconds']

const scrapes = []
let latest = null
let problem = null
let askAt = 0

const reduced = (samples, at) => ({
  at,
  connections: sum(samples, `${P}connections`),
  memory: sum(samples, `${P}memory_bytes`),
  backlog: sum(samples, `${P}journal_backlog_bytes`),
  in: sum(samples, `${P}messages_total`, { direction: 'in' }),
  out: sum(samples, `${P}messages_total`, { direction: 'out' }),
  ...Object.fromEntries(HISTOGRAMS.map(name => [name, buckets(samples, P + name)]))
})

const pointOf = (scrape, before) => {
  const passed_s = before === undefined ? 0 : (scrape.at - before.at) / 1000
  const rateOf = name => before === undefined ? null : rate(before[name], scrape[name], passed_s)
  const p99 = name => before === undefined ? null : quantile(0.99, before[name], scrape[name])
  return {
    at: scrape.at,
    connections: scrape.connections,
    memory: scrape.memory,
    backlog: scrape.backlog,
    in: rateOf('in'),
    out: rateOf('out'),
    commit: p99('commit_seconds'),
    confirm: p99('confirm_seconds'),
    lag: p99('loop_lag_seconds')
  }
}

export const points = []

// Of one gauge, now, over all processes; null if it isn't known.
export const gauge = name => latest === null ? null : sum(latest, P + name)

// The same of the process that has most of it, for what can't be added.
export const most = name => Math.max(0, ...(latest?.get(P + name) ?? []).map(({ value }) => value))

// The labels of one series, such as `build_info`.
export const labels = name => latest?.get(P + name)?.[0]?.labels ?? {}

// How many processes this is about.
export const workers = () => new Set((latest?.get(`${P}connections`) ?? []).map(one => one.labels.worker)).size

// Why there is nothing to see; null if there is.
export const missing = () => problem

// Ask once more.
export const collect = async signal => {
  if (Date.now() < askAt) return
  const answer = await api.look('metrics', { signal })
  if (!answer.ok) {
    problem = `The server shows no metrics here (${answer.status}). If it has a port of its own for operations (CRDT_SYNC_OPS_PORT), they are there.`
    if (answer.status !== 401) askAt = Date.now() + AGAIN_MS
    return
  }
  latest = parse(await answer.text())
  problem = latest.has(`${P}connections`) ? null : 'What the server answers for its metrics isn\'t understood here. Does something between you and it answer in its place?'
  const at = Date.now()
  scrapes.push(reduced(latest, at))
  while (scrapes.length > WINDOW + 1) scrapes.shift()
  points.push(pointOf(scrapes.at(-1), scrapes.length > 1 ? scrapes[0] : undefined))
  while (points[0].at < at - KEPT_MS) points.shift()
}
