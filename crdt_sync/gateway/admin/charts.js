// Small charts of the last minutes.
import { h, svg } from './dom.js'

const WIDTH = 300
const HEIGHT = 80
const SPAN_MS = 5 * 60 * 1000

// The next number that reads well: 1, 2 or 5 with zeros.
const roundUp = value => {
  const power = 10 ** Math.floor(Math.log10(value))
  return [1, 2, 5, 10].map(one => one * power).find(one => one >= value * 0.999)
}

// Lines through what is known; a gap where nothing is.
const pathOf = (points, x, y, of) => {
  let path = ''
  let last = false
  for (const point of points) {
    const value = of(point)
    if (value !== null) path += `${last ? 'L' : 'M'}${x(point).toFixed(1)} ${y(value).toFixed(1)}`
    // A single point is drawn by a line of no length.
    if (value !== null && !last) path += 'h0'
    last = value !== null
  }
  return path
}

// A chart with a line for each of `series`, {name, of}: `of(point)` is a number or null, and `format` writes it.
// `least` is what the axis reaches at least. Returns {element, draw(points)}.
export const chart = ({ title, hint, series, format, least }) => {
  const lines = series.map((_, i) => svg('path', { class: `line line-${i}` }))
  const area = svg('path', { class: 'area' })
  const cursor = svg('line', { class: 'cursor', y1: 0, y2: HEIGHT, hidden: true })
  const picture = svg('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img' },
    [0, 0.5, 1].map(share => svg('line', { class: 'grid', x1: 0, x2: WIDTH, y1: share * HEIGHT, y2: share * HEIGHT })),
    area, lines, cursor)
  const most = h('span', { class: 'most' })
  const values = series.map(({ name }, i) => ({ name, i, shown: h('output', {}) }))
  const when = h('span', {}, 'now')
  const element = h('figure', { class: 'chart' },
    h('figcaption', {}, h('h3', { title: hint }, title),
      h('p', { class: 'values' }, values.map(({ name, i, shown }) =>
        h('span', { class: `value value-${i}` }, shown, name === null ? null : h('small', {}, name))))),
    h('div', { class: 'picture' }, most, picture),
    h('p', { class: 'axis' }, h('span', {}, '5 min ago'), when))
  let points = []
  let pointed = null

  const show = () => {
    const at = pointed ?? points.at(-1)
    for (const { i, shown } of values) {
      const value = at === undefined ? null : series[i].of(at)
      shown.textContent = value === null ? '–' : format(value)
    }
    when.textContent = pointed === null ? 'now' : new Date(pointed.at).toLocaleTimeString()
    cursor.toggleAttribute('hidden', pointed === null)
  }

  const draw = all => {
    const now = Date.now()
    points = all.filter(({ at }) => at >= now - SPAN_MS)
    const x = ({ at }) => WIDTH * (1 - (now - at) / SPAN_MS)
    const known = points.flatMap(point => series.map(({ of }) => of(point)).filter(value => value !== null))
    const top = roundUp(Math.max(least, ...known))
    const y = value => HEIGHT * (1 - value / top)
    most.textContent = format(top)
    series.forEach(({ of }, i) => lines[i].setAttribute('d', pathOf(points, x, y, of)))
    const first = points.filter(point => series[0].of(point) !== null)
    area.setAttribute('d', series.length > 1 || first.length < 2 || first.length < points.length
      ? ''
      : `${pathOf(first, x, y, series[0].of)}L${x(first.at(-1)).toFixed(1)} ${HEIGHT}L${x(first[0]).toFixed(1)} ${HEIGHT}Z`)
    const told = series.map(({ name, of }) => {
      const all = points.map(of).filter(value => value !== null)
      const text = all.length === 0 ? 'nothing yet' : `now ${format(all.at(-1))}, between ${format(Math.min(...all))} and ${format(Math.max(...all))}`
      return name === null ? text : `${name} ${text}`
    })
    picture.setAttribute('aria-label', `${title}, last five minutes: ${told.join('; ')}`)
    if (pointed !== null && !points.includes(pointed)) pointed = null
    show()
  }

  picture.addEventListener('pointermove', event => {
    const box = picture.getBoundingClientRect()
    const at = Date.now() - SPAN_MS * (1 - (event.clientX - box.left) / box.width)
    pointed = points.reduce((best, one) => best === null || Math.abs(one.at - at) < Math.abs(best.at - at) ? one : best, null)
    if (pointed !== null) {
      const x = WIDTH * (1 - (Date.now() - pointed.at) / SPAN_MS)
      cursor.setAttribute('x1', x)
      cursor.setAttribute('x2', x)
    }
    show()
  })
  picture.addEventListener('pointerleave', () => {
    pointed = null
    show()
  })
  return { element, draw }
}
