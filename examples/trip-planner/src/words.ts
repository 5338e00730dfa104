// Amounts, moments, and what has changed in a trip, in words for people. Pure.
import type { Change, Content, Run } from './server'

export const TYPE_WORDS = { attraction: 'Sight', restaurant: 'Food', hotel: 'Stay', transport: 'Travel', free: 'Free time' } as const
export const BOOKING_WORDS = { none: 'Not booked', pending: 'Requested', confirmed: 'Booked', cancelled: 'Cancelled' } as const

export function money(amount: number, currency: string): string {
  try {
    return new Intl.NumberFormat(undefined, {
      style: 'currency', currency, currencyDisplay: 'narrowSymbol', minimumFractionDigits: Number.isInteger(amount) ? 0 : 2
    }).format(amount)
  } catch {
    return `${amount} ${currency}`.trim()
  }
}

/** A moment as one would say it now. */
export function when(moment: string | Date, now = new Date()): string {
  const at = new Date(moment)
  if (Number.isNaN(at.getTime())) return ''
  const minutes = Math.round((now.getTime() - at.getTime()) / 60_000)
  if (minutes < 1) return 'just now'
  if (minutes < 60) return `${minutes} min ago`
  const time = at.toLocaleTimeString(undefined, { hour: '2-digit', minute: '2-digit' })
  if (at.toDateString() === now.toDateString()) return time
  const sameYear = at.getFullYear() === now.getFullYear()
  return `${at.toLocaleDateString(undefined, { day: 'numeric', month: 'short', ...(sameYear ? {} : { year: 'numeric' }) })}, ${time}`
}

export const initials = (name: string) =>
  name.split(/\s+/).filter(Boolean).slice(0, 2).map(word => [...word][0]!.toUpperCase()).join('') || '?'

export const count = (number: number, one: string, many = `${one}s`) => `${number} ${number === 1 ? one : many}`

/** Names as in a sentence; those whom the server doesn't know are left out. */
export function names(all: (string | null)[]): string {
  const known = all.filter(name => name !== null)
  return known.length < 2 ? known.join('') : `${known.slice(0, -1).join(', ')} and ${known.at(-1)}`
}

// ---------------------------------------------------------------------------------------------------- changes

export interface Line {
  kind: 'added' | 'removed' | 'changed'
  text?: string
  before?: string
  after?: string
  runs?: { kind: Run['kind'] | 'gap'; text: string }[]
}
export interface Group { title: string; authors: string; lines: Line[] }

const CONTEXT_CHARS = 24
const SHOWN_CHARS = 300
const FIELD_WORDS: Record<string, string> = { time_slot: 'time', currency: 'currency', title: 'title', notes: 'notes' }
const MOVED = 'Moved'
const UNTOLD = new Set(['metadata', 'trip'])

/** Changes by what they are about: an item, the notes, the budget. `newer` is the content that they lead to. */
export function describe(changes: Change[], newer: Content): Group[] {
  const groups = new Map<string, Group & { by: Set<string | null> }>()
  for (const change of changes) {
    const [root, key] = change.path
    if (typeof root !== 'string' || UNTOLD.has(root)) continue
    const about = titleOf(change, newer)
    const line = lineOf(change, newer)
    if (line === null) continue
    const id = `${root}/${root === 'itinerary' || root === 'comments' ? key : ''}/${about}`
    const group = groups.get(id) ?? { title: about, authors: '', lines: [], by: new Set() }
    group.lines.push(line)
    for (const author of change.authors) group.by.add(author)
    groups.set(id, group)
  }
  return [...groups.values()].map(({ by, title, lines }) => ({ title, authors: names([...by]), lines: lines.filter(told) }))
}

/** Whether a line says more than others: a move to another day also sets the rank. */
const told = (line: Line, _: number, all: Line[]) => line.text !== MOVED || !all.some(one => one.text?.startsWith(`${MOVED} from`))

function titleOf({ path, kind, before, after }: Change, newer: Content): string {
  const [[root, index], depth] = [path, path.length]
  if (root === 'itinerary') {
    const item = kind === 'removed' ? before : kind === 'added' ? after : at(newer['itinerary'], index)
    return plain(at(item, 'title')) || 'Something without a title'
  }
  if (root === 'comments') return kind === 'changed' ? 'Comment' : depth > 2 ? 'Reply' : kind === 'removed' ? 'Comment removed' : 'New comment'
  return { title: 'Title of the trip', description: 'Description', notes: 'Notes', budget: 'Budget' }[root as string] ?? String(root)
}

function lineOf(change: Change, newer: Content): Line | null {
  const { path, kind, before, after, runs } = change
  const [root, key, field] = path
  if (runs !== undefined) return { kind: 'changed', runs: shorten(runs, plain(path.reduce<unknown>(at, newer))) }
  if (root === 'itinerary' && path.length <= 2) {
    const day = at(after ?? before, 'day')
    return kind === 'removed' ? { kind, text: `Removed from day ${day}` } : { kind: 'added', text: `Added to day ${day}` }
  }
  if (root === 'itinerary' && field === 'day') return { kind: 'changed', text: `${MOVED} from day ${before} to day ${after}` }
  if (root === 'itinerary' && field === 'rank') return { kind: 'changed', text: MOVED }
  if (root === 'budget') return { kind: kindOf(kind), text: 'Planned', ...both(amountOf(before, key), amountOf(after, key)) }
  if (root === 'comments') {
    if (field === 'resolved') return { kind: 'changed', text: `${after === true ? 'Resolved' : 'Opened again'}: ${plain(at(at(newer['comments'], key), 'content'))}` }
    const said = plain(at(after ?? before, 'content'))
    return said === '' ? null : { kind: kindOf(kind), ...(kind === 'removed' ? { before: said } : { after: said }) }
  }
  if (root === 'itinerary' && field === 'cost') {
    const currency = at(at(newer['itinerary'], key), 'currency')
    return { kind: kindOf(kind), text: 'Cost', ...both(amountOf(before, currency), amountOf(after, currency)) }
  }
  if (root === 'itinerary' && (field === 'type' || field === 'booking_status')) {
    const words: Record<string, string> = field === 'type' ? TYPE_WORDS : BOOKING_WORDS
    const wordOf = (value: unknown) => words[plain(value)] ?? value
    return { kind: kindOf(kind), text: field === 'type' ? 'Kind' : 'Booking', ...both(wordOf(before), wordOf(after)) }
  }
  const word = typeof field === 'string' ? FIELD_WORDS[field] ?? field : undefined
  return { kind: kindOf(kind), ...(word === undefined ? {} : { text: word[0]!.toUpperCase() + word.slice(1) }), ...both(before, after) }
}

const amountOf = (value: unknown, currency: unknown) => typeof value === 'number' ? money(value, plain(currency)) : value
const kindOf = (kind: Change['kind']) => kind === 'added' || kind === 'removed' ? kind : 'changed'
const both = (before: unknown, after: unknown) => ({
  ...(before === undefined ? {} : { before: plain(before) }), ...(after === undefined ? {} : { after: plain(after) })
})
const at = (value: unknown, key: unknown): unknown => (value as Record<string, unknown> | undefined)?.[key as string]

function plain(value: unknown): string {
  if (typeof value === 'string') return value.length > SHOWN_CHARS ? `${value.slice(0, SHOWN_CHARS)}…` : value
  return value === undefined || value === null ? '' : typeof value === 'object' ? JSON.stringify(value).slice(0, SHOWN_CHARS) : String(value)
}

/** What changed in a text, with a few words around it. What was kept isn't told, so it is taken from the newer text. */
function shorten(runs: Run[], newer: string): Line['runs'] {
  return runs.map((run, index) => {
    if (run.kind !== 'kept') return { kind: run.kind, text: plain(run.text ?? '▢') }
    const kept = newer.slice(run.at, run.at + run.length)
    if (kept.length <= 2 * CONTEXT_CHARS) return { kind: 'kept' as const, text: kept }
    const [first, last] = [index === 0, index === runs.length - 1]
    const [after, before] = [kept.slice(0, CONTEXT_CHARS).replace(/\S*$/, ''), kept.slice(-CONTEXT_CHARS).replace(/^\S*/, '').trimStart()]
    return { kind: 'kept' as const, text: `${first ? '' : after}… ${last ? '' : before}` }
  })
}
