// The top of the page: what the trip is called, who is here, what is saved, and what one can do about all of it.
import type * as Y from 'yjs'
import { useEffect, useReducer, useRef } from 'preact/hooks'
import type { Connection, Status } from './connection'
import { announce, Avatar, IconButton, Menu, TextField } from './fields'
import { Icon } from './icons'
import { roomUrl } from './rooms'
import { useStore, type Person } from './store'
import { theme, type Theme } from './theme'
import { count } from './words'

const FACES_MAX = 4

export function Header({ connection, people, showHistory, rename }: { connection: Connection; people: Person[]; showHistory: () => void; rename: () => void }) {
  const { trip, status, undo } = connection
  const now = useStore(status)
  return (
    <header class="top">
      <div class="names">
        <h1 class="unseen">{trip.title.toString() || 'Untitled trip'}</h1>
        <TextField text={trip.title} label="Title of the trip" placeholder="Name this trip" class="trip-title" />
        <TextField text={trip.description} label="What it is about" placeholder="What is it about?" class="trip-description" />
      </div>
      <More me={connection.me.name} rename={rename} />
      <div class="tools">
        <People people={people} />
        <Saved status={now} setOffline={offline => connection.setOffline(offline)} />
        <span class="group">
          <UndoButtons undo={undo} />
          <IconButton icon="history" label="History" onClick={showHistory} />
        </span>
        <Share room={connection.room} />
      </div>
    </header>
  )
}

function People({ people }: { people: Person[] }) {
  const hidden = people.length - FACES_MAX
  return (
    <Menu class="people" button={props => (
      <button type="button" class="faces" {...props} aria-label={`Who is here: ${people.map(said).join(', ')}`}>
        {people.slice(0, hidden === 1 ? FACES_MAX + 1 : FACES_MAX).map(person => <Avatar key={person.client} person={person} />)}
        {hidden > 1 && <span class="avatar more" data-initials={`+${hidden}`} aria-hidden="true" />}
      </button>
    )}>
      <h2>{count(people.length, 'person', 'people')} here</h2>
      <ul>{people.map(person => <li key={person.client}><Avatar person={person} /><span>{person.name}{person.me && ' (you)'}</span><span class="state">{person.idle ? 'idle' : placeOf(person.at)}</span></li>)}</ul>
    </Menu>
  )
}

const said = (person: Person) => `${person.name}${person.me ? ' (you)' : ''}${person.idle ? ', idle' : ''}`
const placeOf = (at: string | null) => at === null ? '' : at.startsWith('item:') ? 'in the plan' : `in the ${at}`

const STATES: Record<Status['state'], { icon: 'check' | 'spinner' | 'cloudOff'; text: string }> = {
  saved: { icon: 'check', text: 'Saved' },
  saving: { icon: 'spinner', text: 'Saving…' },
  offline: { icon: 'cloudOff', text: 'Offline' },
  waiting: { icon: 'cloudOff', text: 'Connecting…' }
}

function Saved({ status: { state, unsaved, savedAt, wantsOffline, synced }, setOffline }: { status: Status; setOffline: (offline: boolean) => void }) {
  const { icon, text } = STATES[state]
  const isAway = state === 'offline' || state === 'waiting'
  const words = `${state === 'waiting' && synced ? 'No connection' : text}${isAway && unsaved > 0 ? `, ${unsaved} unsaved` : ''}`
  const wasAway = useRef(isAway)
  useEffect(() => {
    // To hear of every "saved" would be no help.
    if (isAway !== wasAway.current) announce(isAway ? 'Offline. Edits are kept in this browser.' : 'Online')
    wasAway.current = isAway
  }, [isAway])
  return (
    <Menu class="saving" button={props => (
      <button type="button" class={`pill ${state}`} {...props}><Icon name={icon} size={16} />{words}<Icon name="chevron" size={14} /></button>
    )}>
      <p>{
        unsaved > 0 ? `${count(unsaved, 'edit')} of yours ${unsaved === 1 ? 'is' : 'are'} kept in this browser, and not on the server yet.`
          : state === 'saved' ? `Everything is stored on the server’s disk${savedAt ? ` as of ${savedAt.toLocaleTimeString()}` : ''}.`
            : state === 'saving' ? 'Sent to the server, which has not said yet that it is stored.' : 'Nothing of yours is waiting to be sent.'
      }</p>
      <label class="switch"><input type="checkbox" role="switch" checked={wantsOffline} onChange={event => setOffline(event.currentTarget.checked)} /><span>Work offline</span></label>
      <p class="hint">Edit without a connection, reload if you like, and come back.</p>
    </Menu>
  )
}

function UndoButtons({ undo }: { undo: Y.UndoManager }) {
  const [, again] = useReducer<number, void>(count => count + 1, 0)
  useEffect(() => {
    const changed = () => again()
    const events = ['stack-item-added', 'stack-item-popped', 'stack-cleared'] as const
    for (const event of events) undo.on(event, changed)
    const keys = (event: KeyboardEvent) => {
      if (!(event.ctrlKey || event.metaKey) || event.altKey || document.querySelector('dialog[open]')) return
      const key = event.key.toLowerCase()
      const act = key === 'z' && !event.shiftKey ? 'undo' : key === 'y' || (key === 'z' && event.shiftKey) ? 'redo' : null
      if (act === null || isDraft(event.target)) return
      event.preventDefault()
      event.stopPropagation()
      undo[act]()
    }
    addEventListener('keydown', keys, { capture: true })
    return () => {
      for (const event of events) undo.off(event, changed)
      removeEventListener('keydown', keys, { capture: true })
    }
  }, [undo])
  const act = (which: 'undo' | 'redo') => {
    const did = undo[which]()
    announce(did === null ? 'Nothing to take back' : which === 'undo' ? 'Taken back' : 'Done again')
  }
  return (
    <>
      <IconButton icon="undo" label="Undo my last edit" disabled={undo.undoStack.length === 0} onClick={() => act('undo')} />
      <IconButton icon="redo" label="Redo" class="redo" disabled={undo.redoStack.length === 0} onClick={() => act('redo')} />
    </>
  )
}

/** Fields whose content isn't in the document yet have an undo of their own. */
const isDraft = (target: EventTarget | null) => target instanceof HTMLElement && target.closest('form') !== null && target.matches('input, textarea')

function Share({ room }: { room: string }) {
  const url = roomUrl(room)
  return (
    <Menu class="share" button={props => <button type="button" class="primary" {...props}><Icon name="share" size={18} /><span>Share</span></button>}>
      <h2>Plan it together</h2>
      <p>Whoever opens this link edits with you.</p>
      <div class="row">
        <input readOnly value={url} aria-label="Link to this trip" onFocus={event => event.currentTarget.select()} />
        <button type="button" class="primary small" onClick={async event => {
          const button = event.currentTarget
          try {
            await navigator.clipboard.writeText(url)
          } catch {
            button.parentElement!.querySelector('input')!.select()
            document.execCommand('copy')
          }
          button.textContent = 'Copied'
          announce('Link copied')
          setTimeout(() => { button.textContent = 'Copy' }, 2000)
        }}>Copy</button>
      </div>
      <a class="quiet" href={url} target="_blank" rel="opener">Open a second window</a>
    </Menu>
  )
}

function More({ me, rename }: { me: string; rename: () => void }) {
  const { value, choose } = useStoreTheme()
  return (
    <Menu class="more-menu" button={props => <button type="button" class="icon-button" {...props} aria-label="More" title="More"><Icon name="dots" /></button>}>
      <fieldset><legend>Appearance</legend><div class="choice">
        {(['system', 'light', 'dark'] as Theme[]).map(one => <button type="button" aria-pressed={value === one} onClick={() => choose(one)}>{one[0]!.toUpperCase() + one.slice(1)}</button>)}
      </div></fieldset>
      <button type="button" class="quiet" onClick={rename}>You are {me}. Change your name</button>
      <a class="quiet" href="?new"><Icon name="plus" />New trip</a>
      <a class="quiet" href="/">Example trip</a>
    </Menu>
  )
}

function useStoreTheme() {
  const { value } = useStore(theme)
  return { value, choose: (value: Theme) => theme.set({ value }) }
}
