// Who somebody is, in this window. Two windows of one browser are two people, so that one can try it out alone.

export interface Identity { name: string; color: string; key: string }

// White on each of them can be read (4.5 : 1).
export const COLORS = ['#0b6e69', '#a63d0a', '#6d3fb0', '#1560a8', '#a8224f', '#4b6b12', '#7a5200', '#3f4fb5']
const NAMES = ['Ada', 'Bram', 'Chidi', 'Dina', 'Emre', 'Fatou', 'Goran', 'Hana', 'Ivo', 'Jun', 'Kaya', 'Lena', 'Mateo', 'Noor', 'Olga', 'Priya']
const PLACE = 'trip-planner:me'
// A page that is loaded anew may still have been here a moment ago.
const PATIENCE_MS = 500

export const random = <T>(all: readonly T[]): T => all[Math.floor(Math.random() * all.length)]!

/** A UUID, also on a page that came by plain http from another machine, where browsers have less. */
export const newId = (): string => crypto.randomUUID?.() ?? '10000000-1000-4000-8000-100000000000'.replace(/[018]/g, digit =>
  (Number(digit) ^ crypto.getRandomValues(new Uint8Array(1))[0]! & 15 >> Number(digit) / 4).toString(16))

/** Somebody new, with a name to begin with. */
export const stranger = (): Identity => ({ name: random(NAMES), color: random(COLORS), key: newId() })

/** Who was in this window before, or was in this browser and isn't in another window now; null if there is nobody. */
export async function remembered(): Promise<Identity | null> {
  const here = read(sessionStorage)
  if (here !== null) {
    // A copy of a window (by "duplicate tab") comes with its memory, and is somebody else.
    return await claim(here.key, PATIENCE_MS) ? here : null
  }
  const before = read(localStorage)
  if (before === null || !await claim(before.key)) return null
  sessionStorage.setItem(PLACE, JSON.stringify(before))
  return before
}

/** Remember who this is. */
export async function remember(identity: Identity): Promise<void> {
  await claim(identity.key)
  for (const storage of [sessionStorage, localStorage]) storage.setItem(PLACE, JSON.stringify(identity))
}

const claimed = new Set<string>()

/** Whether no other window is this one; from then on, none will be. The lock lasts as long as the page. */
async function claim(key: string, patienceMs = 0): Promise<boolean> {
  if (claimed.has(key) || navigator.locks === undefined) return true
  return await new Promise<boolean>(answer => {
    const options = patienceMs === 0 ? { ifAvailable: true } : { signal: AbortSignal.timeout(patienceMs) }
    navigator.locks.request(`trip-planner:${key}`, options, lock => {
      if (lock !== null) claimed.add(key)
      answer(lock !== null)
      return lock === null ? undefined : new Promise(() => {})
    }).catch(() => answer(false))
  })
}

function read(storage: Storage): Identity | null {
  try {
    const found = JSON.parse(storage.getItem(PLACE) ?? 'null')
    return typeof found?.name === 'string' && typeof found.key === 'string' && COLORS.includes(found.color) ? found : null
  } catch {
    return null
  }
}
