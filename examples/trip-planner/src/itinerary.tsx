// The itinerary: days, the items in them, and moving those by dragging, keys and buttons.
import { useState } from 'preact/hooks'
import { useKeptFocus } from './focus'
import { Thread } from './comments'
import type { Connection } from './connection'
import { useDrag, type Drag, type Spot } from './drag'
import { announce, Avatar, readAmount, TextField, ValueField } from './fields'
import { Icon } from './icons'
import type { Person } from './store'
import { BOOKING_STATUSES, DAYS_MAX, ITEM_TYPES, type Comment, type Item, type ItemType } from './trip'
import { BOOKING_WORDS, money, TYPE_WORDS } from './words'

// A day beyond that is shown only if something is in it.
const DAYS_SHOWN_MAX = 60

interface Props { connection: Connection; people: Person[]; comments: Comment[]; open: string | null; setOpen: (id: string | null) => void }

export function Itinerary({ connection, people, comments, open, setOpen, loaded }: Props & { loaded: boolean }) {
  const { trip, undo } = connection
  const [days, setDays] = useState(1)
  const items = trip.items()
  const last = Math.max(days, ...items.map(item => item.day))
  const shown = last <= DAYS_SHOWN_MAX ? [...Array(last).keys()].map(index => index + 1) : [...new Set(items.map(item => item.day))]

  const move = (id: string, { day, index }: Spot) => {
    undo.stopCapturing()
    trip.moveItem(id, day, index)
    const there = trip.items().filter(item => item.day === day)
    const place = there.findIndex(item => item.id === id)
    announce(`${there[place]?.title || 'Item'}: day ${day}, ${place + 1} of ${there.length}`)
  }
  const { drag, begin } = useDrag(move)

  /** One place up or down, over the edge of a day into the next one. */
  const step = (item: Item, by: -1 | 1) => {
    const there = items.filter(one => one.day === item.day)
    const index = there.findIndex(one => one.id === item.id) + by
    if (index >= 0 && index < there.length) move(item.id, { day: item.day, index })
    else if (by === -1 && item.day > 1) move(item.id, { day: item.day - 1, index: Infinity })
    else if (by === 1 && item.day < DAYS_MAX && (item.day < last || there.length > 1)) move(item.id, { day: item.day + 1, index: 0 })
    else announce('It can’t go any further')
  }
  useKeptFocus()

  return (
    <section id="plan" class="panel plan" aria-label="Itinerary">
      <p id="how-to-move" class="unseen">The arrow keys move it up and down, and into the next day.</p>
      {items.length === 0 && (loaded ? <Invitation /> : <p class="nothing opening">Opening the trip…</p>)}
      {shown.map(day => (
        <Day
          key={day} day={day} items={items.filter(item => item.day === day)} drag={drag} begin={begin} step={step} move={move} days={shown}
          {...{ connection, people, comments, open, setOpen }}
        />
      ))}
      {drag !== null && (
        <div class="day coming" data-day={last + 1}><p class="spot-day">{drag.spot.day === last + 1 ? `Drop for a new day ${last + 1}` : `Day ${last + 1}`}</p></div>
      )}
      <button type="button" class="quiet add-day" disabled={last === DAYS_MAX} onClick={() => { setDays(last + 1); announce(`Day ${last + 1}`) }}>
        <Icon name="plus" />Add day {last + 1}
      </button>
      {drag !== null && <div class="ghost" style={{ transform: `translate(${drag.x}px, ${drag.y}px)` }}>{drag.title || 'Untitled'}</div>}
    </section>
  )
}

const Invitation = () => (
  <div class="invitation">
    <svg viewBox="0 0 240 90" aria-hidden="true"><path class="way" d="M14 74c40-44 62 18 98-18s52-40 92-38" /><circle cx="14" cy="74" r="6" /><path class="pin" d="M206 6a13 13 0 0 1 13 13c0 9-13 23-13 23s-13-14-13-23a13 13 0 0 1 13-13z" /></svg>
    <h2>Where are you going?</h2>
    <p>Give the trip a name above, write down the first thing you want to do, and send the link to whoever comes along.</p>
  </div>
)

interface DayProps extends Props {
  day: number; items: Item[]; days: number[]; drag: Drag | null
  begin: (event: PointerEvent, id: string, title: string) => void
  step: (item: Item, by: -1 | 1) => void
  move: (id: string, spot: Spot) => void
}

function Day({ day, items, drag, ...rest }: DayProps) {
  const spot = drag?.spot.day === day ? drag.spot.index : null
  let others = -1
  return (
    <section class="day" data-day={day} aria-labelledby={`day-${day}`}>
      <header><h2 id={`day-${day}`}>Day {day}</h2><DayCosts items={items} /></header>
      <ol class="items">
        {items.map(item => <ItemCard key={item.id} item={item} dragged={item.id === drag?.id} spot={item.id !== drag?.id && ++others === spot} {...rest} />)}
        {spot !== null && spot > others && <li key="spot" class="spot last" role="presentation" />}
      </ol>
      <AddItem day={day} empty={items.length === 0} {...rest} />
    </section>
  )
}

function DayCosts({ items }: { items: Item[] }) {
  const costs = new Map<string, number>()
  for (const { cost, currency, booking } of items) {
    if (cost !== null && currency && booking !== 'cancelled') costs.set(currency, (costs.get(currency) ?? 0) + cost)
  }
  return <span class="day-costs">{[...costs].map(([currency, cost]) => money(cost, currency)).join(' + ')}</span>
}

function ItemCard({ item, dragged, spot, connection, people, comments, open, setOpen, begin, step, ...rest }: Omit<DayProps, 'day' | 'items' | 'drag'> & { item: Item; dragged: boolean; spot: boolean }) {
  const { id, type, timeSlot, cost, currency, booking } = item
  const isOpen = open === id
  const here = people.filter(person => !person.me && person.at === `item:${id}`)
  const text = connection.trip.itemText(id, 'title')
  const title = item.title || 'Untitled'
  const talk = comments.filter(comment => comment.target.type === 'item' && comment.target.path === id)
  const unresolved = talk.filter(comment => !comment.resolved).length
  const keys = (event: KeyboardEvent) => {
    const by = event.key === 'ArrowUp' ? -1 : event.key === 'ArrowDown' ? 1 : 0
    if (by === 0) return
    event.preventDefault()
    step(item, by)
  }
  return (
    <li class={`item ${isOpen ? 'open' : ''} ${dragged ? 'dragged' : ''} ${spot ? 'spot' : ''} ${booking === 'cancelled' ? 'cancelled' : ''}`} data-item={id} data-at={`item:${id}`} style={here[0] && { '--someone': here[0].color }}>
      <div class="line">
        <button
          type="button" class="grip" aria-label={`Move ${title}`} title="Drag to move, or use the arrow keys" aria-describedby="how-to-move"
          onPointerDown={event => begin(event, id, item.title)} onKeyDown={keys}
        ><Icon name="grip" /></button>
        <span class={`kind kind-${type}`} title={TYPE_WORDS[type]}><Icon name={type} size={18} /></span>
        <div class="what">
          {text === null ? <span>{title}</span> : <TextField text={text} label={`Title, ${TYPE_WORDS[type]}`} placeholder="What is it?" class="item-title" />}
          <div class="facts">
            {cost !== null && <span class="cost">{money(cost, currency)}</span>}
            {timeSlot && <span>{timeSlot}</span>}
            {booking !== 'none' && <span class={`booking ${booking}`}>{booking === 'confirmed' && <Icon name="check" size={13} />}{BOOKING_WORDS[booking]}</span>}
            {unresolved > 0 && <span class="talk"><Icon name="comment" size={14} />{unresolved}<span class="unseen"> open {unresolved === 1 ? 'comment' : 'comments'}</span></span>}
          </div>
        </div>
        {here.length > 0 && <span class="here">{here.map(person => <Avatar key={person.client} person={person} small />)}<span class="unseen">{here.map(person => person.name).join(', ')} here</span></span>}
        {cost !== null && <span class="cost">{money(cost, currency)}</span>}
        <button type="button" class="icon-button unfold" aria-expanded={isOpen} aria-label={`Details of ${title}`} title="Details" onClick={() => setOpen(isOpen ? null : id)}><Icon name="chevron" /></button>
      </div>
      {isOpen && <Details item={item} talk={talk} {...{ connection, step, ...rest }} />}
    </li>
  )
}

function Details({ item, talk, connection, step, move, days }: { item: Item; talk: Comment[]; connection: Connection; step: DayProps['step']; move: DayProps['move']; days: number[] }) {
  const { trip, undo } = connection
  const { id } = item
  const notes = trip.itemText(id, 'notes')
  const others = trip.money().map(one => one.currency)
  const setCost = (typed: string) => {
    undo.stopCapturing()
    const cost = readAmount(typed)
    trip.setItem(id, 'cost', cost)
    if (cost !== null && !item.currency) trip.setItem(id, 'currency', others[0] ?? 'EUR')
  }
  const set = (key: Parameters<typeof trip.setItem>[1], value: string | null) => {
    undo.stopCapturing()
    trip.setItem(id, key, value)
  }
  return (
    <div class="details">
      <div class="grid">
        <label class="wide">When<ValueField value={item.timeSlot} placeholder="09:30, or morning" maxLength={60} save={value => set('time_slot', value || null)} /></label>
        <label>Kind
          <select value={item.type} onChange={event => set('type', event.currentTarget.value)}>{ITEM_TYPES.map(type => <option value={type}>{TYPE_WORDS[type]}</option>)}</select>
        </label>
        <label>Booking
          <select value={item.booking} onChange={event => set('booking_status', event.currentTarget.value)}>{BOOKING_STATUSES.map(status => <option value={status}>{BOOKING_WORDS[status]}</option>)}</select>
        </label>
        <label>Cost<ValueField value={item.cost === null ? '' : String(item.cost)} inputMode="decimal" placeholder="0" pattern="\s*[0-9][0-9\s]*([.,][0-9]+)?\s*" title="A number from 0" save={setCost} /></label>
        <label>Currency<CurrencyField value={item.currency} placeholder={others[0] ?? 'EUR'} save={value => set('currency', value || null)} /></label>
        <label>Day
          <select value={item.day} onChange={event => move(id, { day: Number(event.currentTarget.value), index: Infinity })}>{[...days, Math.min(days.at(-1)! + 1, DAYS_MAX)].map(day => <option value={day}>{day}</option>)}</select>
        </label>
      </div>
      {notes !== null && <TextField text={notes} label="Notes on it" placeholder="Notes: an address, a reservation number…" lines />}
      <Thread connection={connection} comments={talk} target={{ type: 'item', path: id }} />
      <div class="row">
        <button type="button" class="quiet" onClick={() => step(item, -1)}><Icon name="up" />Move up</button>
        <button type="button" class="quiet" onClick={() => step(item, 1)}><Icon name="down" />Move down</button>
        <button
          type="button" class="quiet danger"
          onClick={() => {
            undo.stopCapturing()
            trip.removeItem(id)
            announce(`Removed ${item.title || 'the item'}. Undo brings it back.`)
          }}
        ><Icon name="trash" />Remove</button>
      </div>
    </div>
  )
}

export function CurrencyField({ value, save, ...rest }: { value: string; placeholder?: string; save: (value: string) => void; required?: boolean; id?: string }) {
  return (
    <ValueField
      {...rest} value={value} list="currencies" size={4} maxLength={3} pattern="[A-Za-z]{3}" title="Three letters, such as EUR" autocapitalize="characters" autocomplete="off" class="currency"
      save={typed => save(typed.toUpperCase())}
    />
  )
}

function AddItem({ day, empty, connection: { trip, undo }, setOpen }: { day: number; empty: boolean; connection: Connection; setOpen: (id: string | null) => void }) {
  const [title, setTitle] = useState('')
  const [type, setType] = useState<ItemType>('attraction')
  const add = () => {
    if (title.trim() === '') return
    undo.stopCapturing()
    trip.addItem(day, title.trim(), type)
    setTitle('')
    setOpen(null)
    announce(`Added to day ${day}: ${title.trim()}`)
  }
  return (
    <form class="add-item" onSubmit={event => { event.preventDefault(); add() }}>
      <label class="kind-select"><span class="unseen">Kind of what to add to day {day}</span><Icon name={type} size={18} />
        <select value={type} onChange={event => setType(event.currentTarget.value as ItemType)}>{ITEM_TYPES.map(one => <option value={one}>{TYPE_WORDS[one]}</option>)}</select>
      </label>
      <input
        value={title} onInput={event => setTitle(event.currentTarget.value)} maxLength={200} aria-label={`Add to day ${day}`} enterkeyhint="done"
        placeholder={empty && day === 1 ? 'First thing to do…' : empty ? `Something for day ${day}…` : 'Add something…'}
      />
      <button type="submit" class={title.trim() === '' ? 'icon-button' : 'primary small'} aria-label={`Add to day ${day}`} disabled={title.trim() === ''}>{title.trim() === '' ? <Icon name="plus" /> : 'Add'}</button>
    </form>
  )
}

