// The server's HTTP API, and the token for it: in this tab's session storage, and nowhere else.

const KEY = 'crdt-sync token'

let token = sessionStorage.getItem(KEY)
let asking = null
let ask = async () => false

// Why something wasn't done. `status` is 0 if there was no answer.
export class Problem extends Error {
  constructor (status, title, detail = null) {
    super(detail ?? title)
    this.status = status
    this.title = title
    this.detail = detail
  }
}

// What asks the user for a token: gets the problem with the last one, returns whether there is another.
export const onTokenWanted = asker => { ask = asker }

export const hasToken = () => token !== null

export const forget = () => {
  token = null
  sessionStorage.removeItem(KEY)
}

const problemOf = async answer => {
  try {
    const { title, detail } = await answer.json()
    return new Problem(answer.status, String(title), detail === undefined ? null : String(detail))
  } catch {
    return new Problem(answer.status, answer.statusText || `status ${answer.status}`)
  }
}

const send = async (shown, method, path, { body, signal } = {}) => {
  const headers = {}
  if (shown !== null) headers.Authorization = `Bearer ${shown}`
  if (body !== undefined) headers['Content-Type'] = 'application/json'
  try {
    return await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), signal, cache: 'no-store' })
  } catch (error) {
    if (signal?.aborted) throw error
    throw new Problem(0, 'no answer', 'The server gives no answer. Is it running, and are you connected to its network?')
  }
}

// What only an admin of everything may ask, and what costs little.
const ADMINS = 'deleted?limit=1'

// Whether a token opens this page: null, or the problem with it.
export const tryOut = async shown => {
  const answer = await send(shown, 'GET', `api/v1/${ADMINS}`)
  return answer.ok ? null : problemOf(answer)
}

export const keep = shown => {
  token = shown
  sessionStorage.setItem(KEY, shown)
}

// The first answer that isn't about a missing, bad or expired token: for one of those the user is asked for another.
const answered = async (method, path, options) => {
  for (;;) {
    const shown = token
    const answer = await send(shown, method, path, options)
    if (answer.status !== 401) return answer
    const problem = await problemOf(answer)
    // Somebody else may have got a new one meanwhile.
    if (shown !== token) continue
    if (!await signIn(problem)) throw problem
  }
}

// Have the user asked for another token, once for all that lack one. Returns whether there is one.
export const signIn = problem => {
  asking ??= ask(problem).finally(() => { asking = null })
  return asking
}

// Ask for something; an answer that isn't JSON comes as a Response.
export const call = async (method, path, options) => {
  const answer = await answered(method, `api/v1/${path}`, options)
  if (!answer.ok) throw await problemOf(answer)
  if (answer.status === 204) return null
  return answer.headers.get('content-type')?.startsWith('application/json') && !options?.raw ? answer.json() : answer
}

// Fails if the user is no admin.
export const check = signal => call('GET', ADMINS, { signal })

// What isn't below the API, such as `metrics`; any status will do. Somebody else may answer there, so nobody is asked for a token.
export const look = (path, options) => send(token, 'GET', path, options)

// The path of a room. Browsers take the names `.` and `..` for steps, however they are written, and would ask for another.
export const roomPath = (room, rest = '') => {
  if (room === '.' || room === '..') {
    throw new Problem(0, 'unreachable', `Browsers can't ask for a room that is called "${room}". The command line can: crdt-sync rooms show.`)
  }
  return `rooms/${encodeURIComponent(room)}${rest}`
}
