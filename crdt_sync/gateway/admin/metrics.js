// Prometheus' text format, and what can be told from two scrapes. Nothing in here knows of the page.

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g
const NUMBERS = { '+Inf': Infinity, '-Inf': -Infinity, NaN }

// By name, a list of {labels, value}.
export const parse = text => {
  const found = new Map()
  for (const line of text.split('\n')) {
    const match = line.startsWith('#') ? null : LINE.exec(line)
    if (match === null) continue
    const [, name, labels = '', value] = match
    const sample = {
      labels: Object.fromEntries(Array.from(labels.matchAll(LABEL), ([, label, text]) => [label, text.replace(/\\(.)/g, (_, one) => one === 'n' ? '\n' : one)])),
      value: value in NUMBERS ? NUMBERS[value] : Number(value)
    }
    if (found.has(name)) found.get(name).push(sample)
    else found.set(name, [sample])
  }
  return found
}

const matches = (labels, wanted) => Object.entries(wanted).every(([label, text]) => labels[label] === text)

// Over all workers; null if there is no such series.
export const sum = (samples, name, wanted = {}) => {
  const values = (samples.get(name) ?? []).filter(({ labels }) => matches(labels, wanted)).map(({ value }) => value)
  return values.length === 0 ? null : values.reduce((a, b) => a + b)
}

// A histogram over all workers: [bound, how many were at most that], in order.
export const buckets = (samples, name) => {
  const counts = new Map()
  for (const { labels, value } of samples.get(`${name}_bucket`) ?? []) {
    const bound = labels.le === '+Inf' ? Infinity : Number(labels.le)
    counts.set(bound, (counts.get(bound) ?? 0) + value)
  }
  return [...counts].sort(([a], [b]) => a - b)
}

// How much a counter grew. One that is less than before began anew.
const growth = (before, after) => after >= before ? after - before : after

// Of a counter, per second; null if it can't be told.
export const rate = (before, after, seconds) =>
  before === null || after === null || !(seconds > 0) ? null : growth(before, after) / seconds

// Below which value a share of what was observed in between lies, as Prometheus' histogram_quantile estimates it; null if
// there was nothing.
export const quantile = (share, before, after) => {
  const old = new Map(before)
  const began = after.some(([bound, count]) => count < (old.get(bound) ?? 0))
  const counts = after.map(([bound, count]) => [bound, began ? count : count - (old.get(bound) ?? 0)])
  const total = counts.at(-1)?.[1] ?? 0
  if (!(total > 0)) return null
  const rank = share * total
  const i = counts.findIndex(([, count]) => count >= rank)
  const [bound, count] = counts[i]
  const [low, below] = i > 0 ? counts[i - 1] : [0, 0]
  return bound === Infinity ? low : low + (bound - low) * (rank - below) / (count - below)
}
