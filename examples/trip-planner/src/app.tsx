// The page of one trip.
import { useEffect, useState } from 'preact/hooks'
import { Budget } from './budget'
import { Comments } from './comments'
import type { Connection } from './connection'
import { Header } from './header'
import { History } from './history'
import { Icon } from './icons'
import { remember, type Identity } from './identity'
import { Itinerary } from './itinerary'
import { Notes } from './notes'
import { showPresence } from './presence'
import { useDoc, usePeople, useStore } from './store'
import { Welcome } from './welcome'

const TABS = [['plan', 'Plan', 'plan'], ['notes', 'Notes', 'notes'], ['budget', 'Budget', 'wallet'], ['talk', 'Comments', 'comment']] as const
const CURRENCIES = ['EUR', 'USD', 'GBP', 'CHF', 'JPY', 'SEK', 'NOK', 'DKK', 'PLN', 'CZK', 'AUD', 'CAD', 'INR', 'BRL', 'MXN', 'THB', 'VND', 'ZAR', 'TRY', 'NZD']

export function App({ connection }: { connection: Connection }) {
  const { doc, trip, provider, status } = connection
  useDoc(doc)
  const people = usePeople(provider.awareness)
  const { problem, loaded } = useStore(status)
  const [tab, setTab] = useState<string>('plan')
  const [history, setHistory] = useState(false)
  const [renaming, setRenaming] = useState(false)
  const [open, setOpen] = useState<string | null>(null)
  const comments = trip.comments()
  const unresolved = comments.filter(comment => !comment.resolved).length
  const title = trip.title.toString()

  useEffect(() => showPresence(provider.awareness), [provider])
  useEffect(() => { document.title = title ? `${title} – Trip planner` : 'Trip planner' }, [title])

  const show = (id: string) => {
    setTab('plan')
    setOpen(id)
    setTimeout(() => {
      const item = document.querySelector<HTMLElement>(`[data-item="${CSS.escape(id)}"]`)
      item?.scrollIntoView({ block: 'center' })
      item?.querySelector<HTMLElement>('.unfold')?.focus()
    })
  }
  const rename = async (identity: Identity) => {
    await remember(identity)
    // The name is who one is for the server, so that is another connection.
    location.reload()
  }

  return (
    <>
      <Header connection={connection} people={people} showHistory={() => setHistory(true)} rename={() => setRenaming(true)} />
      {problem && <p class="banner" role="alert">{problem.text} {problem.gone ? <a class="link" href="?new">Start a new trip</a> : problem.final && <button type="button" class="link" onClick={() => location.reload()}>Reload</button>}</p>}
      <nav class="tabs" aria-label="Parts of the trip">
        {TABS.map(([id, label, icon]) => (
          <button type="button" aria-current={tab === id ? 'page' : undefined} onClick={() => { setTab(id); scrollTo(0, 0) }}>
            <Icon name={icon} />{label}{id === 'talk' && unresolved > 0 && <span class="badge">{unresolved}<span class="unseen"> open</span></span>}
          </button>
        ))}
      </nav>
      <main data-tab={tab}>
        <Itinerary {...{ connection, people, comments, open, setOpen, loaded }} />
        <div class="side">
          <Notes connection={connection} />
          <Budget connection={connection} />
          <Comments connection={connection} comments={comments} items={trip.items()} show={show} />
        </div>
      </main>
      {history && <History connection={connection} close={() => setHistory(false)} />}
      {renaming && <Welcome suggested={connection.me} enter={identity => void rename(identity)} cancel={() => setRenaming(false)} />}
      <datalist id="currencies">{CURRENCIES.map(one => <option value={one} />)}</datalist>
      <p id="announcements" class="unseen" aria-live="polite" />
    </>
  )
}
