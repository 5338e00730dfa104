// Money: planned and spent, for each currency. Currencies aren't added up, since nobody here knows the rates.
import { useState } from 'preact/hooks'
import type { Connection } from './connection'
import { announce, IconButton, readAmount, ValueField } from './fields'
import type { Money } from './trip'
import { money } from './words'

export function Budget({ connection }: { connection: Connection }) {
  const { trip, undo } = connection
  const all = trip.money()
  return (
    <section id="budget" class="panel card" aria-labelledby="budget-title" data-at="budget">
      <header><h2 id="budget-title">Budget</h2></header>
      {all.length === 0 && <p class="nothing">What may it cost? Plan an amount in any currency; what you enter for each thing is added up against it.</p>}
      {all.map(one => <Row key={one.currency} one={one} plan={amount => { undo.stopCapturing(); trip.setPlanned(one.currency, amount) }} />)}
      <AddCurrency has={all.map(one => one.currency)} add={currency => {
        undo.stopCapturing()
        trip.setPlanned(currency, 0)
        announce(`Added ${currency}`)
      }} />
    </section>
  )
}

function Row({ one: { currency, planned, spent }, plan }: { one: Money; plan: (amount: number | null) => void }) {
  const left = planned === null ? null : Math.round((planned - spent) * 100) / 100
  const part = planned ? Math.min(1, spent / planned) : spent > 0 ? 1 : 0
  const state = left === null ? 'nothing planned' : left < 0 ? `${money(-left, currency)} over` : `${money(left, currency)} left`
  return (
    <div class={`money ${left !== null && left < 0 ? 'over' : ''}`}>
      <div class="sums">
        <strong>{money(spent, currency)}</strong>
        <label><span class="of">of</span>
          <ValueField aria-label={`Planned in ${currency}`} value={planned === null ? '' : String(planned)} placeholder="–" inputMode="decimal" pattern="\s*[0-9][0-9\s]*([.,][0-9]+)?\s*" title="A number from 0" save={typed => plan(readAmount(typed))} />
          <span class="code">{currency}</span>
        </label>
        {spent === 0 && planned !== null && <IconButton icon="close" label={`Remove ${currency}`} onClick={() => plan(null)} />}
      </div>
      <div class="bar" aria-hidden="true"><span style={{ width: `${part * 100}%` }} /></div>
      <p class="left">{state}</p>
    </div>
  )
}

function AddCurrency({ has, add }: { has: string[]; add: (currency: string) => void }) {
  const [typed, setTyped] = useState('')
  const currency = typed.trim().toUpperCase()
  const good = /^[A-Z]{3}$/.test(currency) && !has.includes(currency)
  return (
    <form class="row add-currency" onSubmit={event => { event.preventDefault(); if (good) { add(currency); setTyped('') } }}>
      <input aria-label="Add a currency" list="currencies" maxLength={3} autocomplete="off" autocapitalize="characters" placeholder={has.length === 0 ? 'EUR' : 'Currency'} value={typed} onInput={event => setTyped(event.currentTarget.value)} />
      <button type="submit" class="quiet small" disabled={!good}>Add currency</button>
    </form>
  )
}
