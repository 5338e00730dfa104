// What the page asks the server by HTTP: a token, and the past of the trip.
import type { Identity } from './identity'

export class Refused extends Error {
  constructor(readonly status: number, message: string) {
    super(message)
  }
}

export interface Version {
  id: number
  seq: number
  taken_at: string
  kind: 'auto' | 'manual' | 'restore'
  label: string | null
  taken_by: string | null
  users: (string | null)[]
}
export interface Run { kind: 'kept' | 'inserted' | 'removed' | 'formatted'; at: number; length: number; text?: string; embed?: unknown }
export interface Change {
  path: (string | number)[]
  where: string
  kind: 'added' | 'removed' | 'changed' | 'text' | 'formatted'
  before?: unknown
  after?: unknown
  runs?: Run[]
  authors: (string | null)[]
}
export interface Restored { done: boolean; impossible: string[]; changes: Change[]; version_before: Version | null }
export type Content = Record<string, unknown>

export class Server {
  /** A token, until it doesn't count any more. */
  private token: string | null = null

  constructor(private readonly me: Identity, private readonly room: string) {}

  /** A fresh token. Throws Refused, or a TypeError if the server can't be reached. */
  async freshToken(): Promise<string> {
    const { token } = await answerOf(await fetch('/session', {
      method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ name: this.me.name, color: this.me.color })
    })) as { token: string }
    this.token = token
    return token
  }

  /** The last token, or a first one. */
  currentToken = async () => this.token ?? await this.freshToken()

  versions = async () => (await this.ask('GET', '/versions') as { versions: Version[] }).versions
  keepVersion = async (label: string) => await this.ask('POST', '/versions', { label }) as Version
  restore = async (version: number) => await this.ask('POST', '/restore', { version, anyway: true }) as Restored
  contentAt = async (version: number | 'now') =>
    await this.ask('GET', version === 'now' ? '/document?format=json' : `/versions/${version}?format=json`) as Content
  diff = async (from: number | string, to: number | 'now') =>
    (await this.ask('GET', `/diff?from=${encodeURIComponent(from)}&to=${to}`) as { changes: Change[] }).changes

  /** Why the room can't be entered, by a plain request: browsers don't tell why a WebSocket was refused. Throws if nobody answers. */
  async diagnose(): Promise<Refused | null> {
    try {
      await this.ask('GET', '')
      return null
    } catch (error) {
      if (!(error instanceof Refused)) throw error
      // A room in which nothing was written yet is none.
      return error.status === 404 ? null : error
    }
  }

  private async ask(method: string, path: string, body?: unknown, again = true): Promise<unknown> {
    const token = await this.currentToken()
    const response = await fetch(`/api/v1/rooms/${encodeURIComponent(this.room)}${path}`, {
      method,
      headers: { authorization: `Bearer ${token}`, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
      body: body === undefined ? null : JSON.stringify(body)
    })
    if (response.status === 401 && again) {
      this.token = null
      return await this.ask(method, path, body, false)
    }
    return await answerOf(response)
  }
}

async function answerOf(response: Response): Promise<unknown> {
  const answer = response.status === 204 ? null : await response.json().catch(() => null)
  if (!response.ok) throw new Refused(response.status, answer?.detail ?? answer?.title ?? `the server answered ${response.status}`)
  return answer
}
