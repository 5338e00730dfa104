import { render } from 'preact'
import './styles.css'
import './theme'
import { App } from './app'
import { Connection } from './connection'
import { remember, remembered, stranger, type Identity } from './identity'
import { roomOf, takeFounding } from './rooms'
import { Welcome } from './welcome'

const place = document.getElementById('app')!
const room = roomOf(location.search)
place.textContent = ''

if (room === null) {
  render(<main class="lost"><h1>This is no link to a trip</h1><p>A link ends in <code>?trip=</code> and letters or digits. Was it cut off?</p><a class="primary" href="/">See the example trip</a></main>, place)
} else {
  void start(room)
}

async function start(room: string): Promise<void> {
  const me = await remembered() ?? await ask()
  const connection = new Connection(room, me)
  await connection.loaded
  if (takeFounding(room)) connection.trip.found(me.name)
  render(<App connection={connection} />, place)
}

function ask(): Promise<Identity> {
  return new Promise(resolve => {
    const enter = async (identity: Identity) => {
      await remember(identity)
      render(null, place)
      resolve(identity)
    }
    render(<Welcome suggested={stranger()} enter={identity => void enter(identity)} />, place)
  })
}

// Keeps the page itself in this browser, so that it can be reloaded without a server too.
if (import.meta.env.PROD) navigator.serviceWorker?.register('/service-worker.js').catch(() => {})
