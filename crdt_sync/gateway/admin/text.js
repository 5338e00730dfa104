// Values as people read them.
import { h } from './dom.js'

// Characters that would move, hide or turn around what stands next to them are shown as what they are.
const UNSEEN = /[\p{Cc}\p{Zl}\p{Zp}\p{Cs}\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]/gu

export const plain = text => String(text).replace(UNSEEN, one => `\\u${one.codePointAt(0).toString(16).padStart(4, '0')}`)

// The same for text of several lines.
export const lines = text => text.split('\n').map(line => line.split('\t').map(plain).join('\t')).join('\n')

// Somebody's words among ours, whichever way they are written.
export const name = text => h('bdi', { class: 'name' }, plain(text))

export const shortened = (text, most) => text.length <= most ? text : `${text.slice(0, most)}…`

export const number = value => value.toLocaleString('en')

export const counted = (value, noun) => `${number(value)} ${noun}${value === 1 ? '' : 's'}`

export const size = bytes => {
  if (bytes === null || bytes === undefined) return '–'
  if (bytes < 1000) return `${Math.round(bytes)} B`
  const power = Math.min(4, Math.floor(Math.log10(bytes) / 3))
  const value = bytes / 1000 ** power
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${' kMGT'[power]}B`
}

export const seconds = value => {
  if (value === 0) return '0 s'
  if (value < 0.001) return `${Math.round(value * 1e6)} µs`
  if (value < 1) return `${Number((value * 1000).toPrecision(2))} ms`
  return `${Number(value.toPrecision(2))} s`
}

const UNITS = [[86400, 'day'], [3600, 'hour'], [60, 'minute']]

const ago = moment => {
  const passed = (Date.now() - moment) / 1000
  const unit = UNITS.find(([length]) => passed >= length)
  return unit === undefined ? 'just now' : `${counted(Math.floor(passed / unit[0]), unit[1])} ago`
}

export const moment = iso => new Date(iso).toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' })

// How long ago something was; `freshen` keeps it true.
export const since = iso => h('time', { datetime: iso, title: moment(iso) }, ago(new Date(iso)))

export const freshen = () => {
  for (const each of document.querySelectorAll('time[datetime]')) {
    const text = ago(new Date(each.dateTime))
    if (each.textContent !== text) each.textContent = text
  }
}
