// The trip in a document: reading it for the page, and every edit that the page makes.
// Follows docs/reference/trips.md. Edits are made under the origin MINE, by which undo knows them.
import * as Y from 'yjs'
import { newId } from './identity'
import { placeAt, inOrder } from './places'

export const MINE = Symbol('mine')
export const ITEM_TYPES = ['attraction', 'restaurant', 'hotel', 'transport', 'free'] as const
export const AMOUNT_MAX = 1e12
export const BOOKING_STATUSES = ['none', 'pending', 'confirmed', 'cancelled'] as const

export type ItemType = (typeof ITEM_TYPES)[number]
export type BookingStatus = (typeof BOOKING_STATUSES)[number]
export type Target = { type: 'trip' | 'item'; path: string }

export interface Item {
  id: string
  day: number
  rank: number | null
  type: ItemType
  timeSlot: string
  cost: number | null
  currency: string
  booking: BookingStatus
  title: string
}
export interface Reply { id: string; author: string; at: string; content: string }
export interface Comment extends Reply { target: Target; resolved: boolean; replies: Reply[] }
export interface Money { currency: string; planned: number | null; spent: number }

type ItemMap = Y.Map<unknown>

export class Trip {
  readonly title: Y.Text
  readonly description: Y.Text
  readonly notes: Y.Text
  private readonly facts: Y.Map<unknown>
  private readonly metadata: Y.Map<unknown>
  private readonly itinerary: Y.Array<ItemMap>
  private readonly budget: Y.Map<number>
  private readonly talk: Y.Array<Y.Map<unknown>>

  constructor(readonly doc: Y.Doc) {
    this.title = doc.getText('title')
    this.description = doc.getText('description')
    this.notes = doc.getText('notes')
    this.facts = doc.getMap('trip')
    this.metadata = doc.getMap('metadata')
    this.itinerary = doc.getArray('itinerary')
    this.budget = doc.getMap('budget')
    this.talk = doc.getArray('comments')
  }

  /** What undo is about: what people see, but not who founded the trip. */
  get parts() {
    return [this.title, this.description, this.notes, this.itinerary, this.budget, this.talk]
  }

  // ------------------------------------------------------------------------------------------------ reading

  /** By day, in each day by rank. What is no item is passed over. */
  items(): Item[] {
    return inOrder(this.maps().map(map => {
      const get = (key: string) => map.get(key)
      return {
        id: text(get('id')),
        day: isDay(get('day')) ? get('day') as number : 1,
        rank: Number.isFinite(get('rank')) ? get('rank') as number : null,
        type: oneOf(ITEM_TYPES, get('type'), 'free'),
        timeSlot: text(get('time_slot')),
        cost: isAmount(get('cost')) ? get('cost') as number : null,
        currency: isCurrency(get('currency')) ? get('currency') as string : '',
        booking: oneOf(BOOKING_STATUSES, get('booking_status'), 'none'),
        title: String(get('title') ?? '')
      }
    }))
  }

  /** A text of an item to bind a field to, or null if it has none, or is gone. */
  itemText(id: string, key: 'title' | 'notes'): Y.Text | null {
    const found = this.find(id)?.get(key)
    return found instanceof Y.Text ? found : null
  }

  /** Every currency that is planned or spent, with what was planned and what the items cost. */
  money(): Money[] {
    const spent = new Map<string, number>()
    for (const { cost, currency, booking } of this.items()) {
      if (cost !== null && currency && booking !== 'cancelled') spent.set(currency, (spent.get(currency) ?? 0) + cost)
    }
    const currencies = new Set([...[...this.budget.keys()].filter(isCurrency), ...spent.keys()])
    const plannedOf = (currency: string) => isAmount(this.budget.get(currency)) ? this.budget.get(currency)! : null
    return [...currencies].sort().map(currency => ({
      currency, planned: plannedOf(currency), spent: Math.round((spent.get(currency) ?? 0) * 100) / 100
    }))
  }

  comments(): Comment[] {
    return this.talk.toArray().filter(hasId).map(one => {
      const replies = one.get('replies')
      const target = one.get('target') as Target | undefined
      return {
        ...said(one),
        target: target?.type === 'item' ? { type: 'item', path: text(target.path) } : { type: 'trip', path: '' },
        resolved: one.get('resolved') === true,
        replies: replies instanceof Y.Array ? replies.toArray().filter(hasId).map(said) : []
      }
    })
  }

  isEmpty(): boolean {
    return this.itinerary.length === 0 && this.title.length === 0 && this.notes.length === 0
  }

  // ------------------------------------------------------------------------------------------------ editing

  /** Make it a trip, once: whoever begins one does. */
  found(owner: string): void {
    this.doc.transact(() => {
      this.facts.set('owner_id', owner)
      this.metadata.set('created_at', new Date().toISOString())
      this.metadata.set('version', 1)
    }, MINE)
  }

  addItem(day: number, title: string, type: ItemType): string {
    const id = newId()
    const there = this.items().filter(item => item.day === day)
    this.doc.transact(() => {
      const item: ItemMap = new Y.Map()
      const facts = { id, day, rank: this.rankAt(there, there.length), type, booking_status: 'none' }
      for (const [key, value] of Object.entries(facts)) item.set(key, value)
      item.set('title', new Y.Text(title))
      item.set('notes', new Y.Text())
      this.itinerary.push([item])
    }, MINE)
    return id
  }

  /** Move an item to an index among the others of a day. The item stays the one it is: only `day` and `rank` are set. */
  moveItem(id: string, day: number, index: number): void {
    const item = this.find(id)
    if (item === undefined) return
    const there = this.items().filter(one => one.day === day && one.id !== id)
    this.doc.transact(() => {
      const rank = this.rankAt(there, index)
      if (item.get('day') !== day) item.set('day', day)
      if (item.get('rank') !== rank) item.set('rank', rank)
    }, MINE)
  }

  /** Set a field of an item; null takes it away. */
  setItem(id: string, key: 'type' | 'time_slot' | 'cost' | 'currency' | 'booking_status', value: string | number | null): void {
    const item = this.find(id)
    if (item === undefined || (item.get(key) ?? null) === value) return
    this.doc.transact(() => value === null ? item.delete(key) : item.set(key, value), MINE)
  }

  removeItem(id: string): void {
    const index = this.itinerary.toArray().findIndex(item => hasId(item) && item.get('id') === id)
    if (index >= 0) this.doc.transact(() => this.itinerary.delete(index), MINE)
  }

  setPlanned(currency: string, amount: number | null): void {
    if ((this.budget.get(currency) ?? null) === amount) return
    this.doc.transact(() => amount === null ? this.budget.delete(currency) : this.budget.set(currency, amount), MINE)
  }

  addComment(target: Target, author: string, content: string): void {
    const comment = saying(author, content)
    comment.set('target', target)
    comment.set('resolved', false)
    comment.set('replies', new Y.Array())
    this.doc.transact(() => this.talk.push([comment]), MINE)
  }

  reply(id: string, author: string, content: string): void {
    this.withComment(id, comment => {
      // Made with its comment, so that two who answer at once don't each put a list there.
      const replies = comment.get('replies')
      if (replies instanceof Y.Array) replies.push([saying(author, content)])
    })
  }

  setResolved(id: string, resolved: boolean): void {
    this.withComment(id, comment => comment.set('resolved', resolved))
  }

  // ------------------------------------------------------------------------------------------------ inside

  private maps(): ItemMap[] {
    return this.itinerary.toArray().filter(hasId)
  }

  private find(id: string): ItemMap | undefined {
    return this.maps().find(item => item.get('id') === id)
  }

  /** The rank of index `index` among `there`; gives those new ones first if there is no number in between. */
  private rankAt(there: Item[], index: number): number {
    const place = placeAt(there.map(item => item.rank), index)
    place.ranks?.forEach((rank, at) => this.find(there[at]!.id)?.set('rank', rank))
    return place.rank
  }

  private withComment(id: string, edit: (comment: Y.Map<unknown>) => void): void {
    const comment = this.talk.toArray().find(one => hasId(one) && one.get('id') === id)
    if (comment !== undefined) this.doc.transact(() => edit(comment), MINE)
  }
}

/** Make a text what a field shows now, keeping what others typed in the rest of it. */
export function setText(text: Y.Text, wanted: string): void {
  const old = text.toString()
  if (old === wanted) return
  let from = 0
  while (from < Math.min(old.length, wanted.length) && old[from] === wanted[from]) from++
  let same = 0
  while (same < Math.min(old.length, wanted.length) - from && old.at(-1 - same) === wanted.at(-1 - same)) same++
  // Never between the halves of an emoji: Yjs would make two replacement characters of it.
  if (isHalf(old, from) || isHalf(wanted, from)) from--
  if (isHalf(old, old.length - same) || isHalf(wanted, wanted.length - same)) same--
  text.doc!.transact(() => {
    text.delete(from, old.length - same - from)
    text.insert(from, wanted.slice(from, wanted.length - same))
  }, MINE)
}

const isHalf = (text: string, at: number) => at > 0 && at < text.length && /[\udc00-\udfff]/.test(text[at]!) && /[\ud800-\udbff]/.test(text[at - 1]!)

// Other clients may have written anything. What isn't as docs/reference/trips.md has it is passed over, and left as it is.
export const DAYS_MAX = 10_000
const hasId = (value: unknown): value is Y.Map<unknown> => value instanceof Y.Map && typeof value.get('id') === 'string'
const isDay = (value: unknown) => Number.isInteger(value) && (value as number) >= 1 && (value as number) <= DAYS_MAX
const isAmount = (value: unknown) => Number.isFinite(value) && (value as number) >= 0 && (value as number) <= AMOUNT_MAX
const isCurrency = (value: unknown) => typeof value === 'string' && /^[A-Z]{3}$/.test(value)
const text = (value: unknown) => typeof value === 'string' ? value : ''
const oneOf = <T extends string>(all: readonly T[], value: unknown, other: T): T => all.find(one => one === value) ?? other

const said = (one: Y.Map<unknown>): Reply => ({
  id: text(one.get('id')), author: text(one.get('author_id')), at: text(one.get('created_at')), content: String(one.get('content') ?? '')
})

function saying(author: string, content: string): Y.Map<unknown> {
  const map = new Y.Map<unknown>()
  map.set('id', newId())
  map.set('author_id', author)
  map.set('content', new Y.Text(content))
  map.set('created_at', new Date().toISOString())
  return map
}
