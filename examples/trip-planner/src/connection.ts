// One open trip: its document, this browser's copy of it, the connection, and what is known of both.
//
// Everything is edited locally first. IndexedDB keeps it in this browser; the provider syncs it; `crdt-sync-client` tells
// which of it the server has committed to disk.
import { attachConfirm, type Confirm } from 'crdt-sync-client'
import { IndexeddbPersistence } from 'y-indexeddb'
import { WebsocketProvider } from 'y-websocket'
import * as Y from 'yjs'
import { addExample, EXAMPLE_ROOM } from './example'
import type { Identity } from './identity'
import { Server } from './server'
import { Store } from './store'
import { MINE, Trip } from './trip'

/** What is wrong, in words for people; `final` if the page doesn't try again by itself. */
export interface Problem { text: string; final: boolean; gone?: boolean }

export interface Status {
  /** `waiting` is offline without having been asked to be. */
  state: 'saved' | 'saving' | 'offline' | 'waiting'
  unsaved: number
  savedAt: Date | null
  /** Whether the content is here, from the server in this visit or from this browser. */
  loaded: boolean
  /** Whether the server's content has been here in this visit. */
  synced: boolean
  /** Whether somebody wants to be offline. */
  wantsOffline: boolean
  problem: Problem | null
}

const CLOSED: Record<number, string> = {
  1009: 'This trip, or one of your edits, is too large for the server. Your edits are kept in this browser only.',
  4400: 'The server could not read what this page sent: a bug. Reload the page; if that does not help, start a new trip.',
  4401: 'You are not signed in any more. Reload the page to go on.',
  4403: 'You may not edit this trip. What you wrote is not saved.',
  4404: 'This trip was deleted. What you still see is gone once you leave.',
  4408: 'You were away for long, so the connection was closed.',
  4413: 'This trip is full: the server takes nothing more. Remove something, or start a new trip.',
  4429: 'This page sent too much at once, and was stopped. Reload it to go on.'
}
const REFUSED: Record<number, string> = {
  401: 'The server does not know you. Reload the page to go on.',
  403: 'You may not open this trip.',
  503: 'The server is too busy, or cannot store anything at the moment. Your edits are kept in this browser until it is back.'
}
const UNREACHABLE = 'The server can’t be reached. Go on editing: everything is kept in this browser, and sent when it is back.'
const PATIENCE_MS = 2500
const OFFLINE_PLACE = 'trip-planner:offline'

export class Connection {
  readonly doc = new Y.Doc()
  readonly trip = new Trip(this.doc)
  readonly status = new Store<Status>({
    state: 'waiting', unsaved: 0, savedAt: null, loaded: false, synced: false, wantsOffline: sessionStorage.getItem(OFFLINE_PLACE) === 'yes', problem: null
  })
  readonly undo = new Y.UndoManager(this.trip.parts, { trackedOrigins: new Set([MINE]), captureTimeout: 600 })
  readonly server: Server
  readonly provider: WebsocketProvider
  readonly loaded: Promise<void>
  private readonly copy: IndexeddbPersistence
  private readonly confirm: Confirm
  private trouble: ReturnType<typeof setTimeout> | undefined

  constructor(readonly room: string, readonly me: Identity) {
    this.server = new Server(me, room)
    this.copy = new IndexeddbPersistence(`${room}/${me.key}`, this.doc)
    this.loaded = this.copy.whenSynced.then(() => {})
    this.provider = new WebsocketProvider(location.origin.replace(/^http/, 'ws'), room, this.doc, {
      connect: false,
      // Two windows of this browser shall meet at the server, as two people would.
      disableBc: true
    })
    this.provider.awareness.setLocalState({ user: { name: me.name, color: me.color }, at: null, idle: false })
    this.confirm = attachConfirm(this.provider, { token: () => this.server.freshToken(), storage: storageOf(me), loaded: this.loaded })
    this.confirm.on('change', () => this.look())
    this.confirm.on('closed', ({ code }) => this.closed(code))
    this.provider.on('status', ({ status }) => status === 'connected' ? this.isWell() : this.look())
    this.provider.on('sync', (synced: boolean) => synced && this.arrived())
    // Undo takes back what was done in one place at a time.
    document.addEventListener('focusin', () => this.undo.stopCapturing())
    void this.loaded.then(() => this.begin())
  }

  /** Cut the connection, or make it again. */
  setOffline(offline: boolean): void {
    sessionStorage.setItem(OFFLINE_PLACE, offline ? 'yes' : 'no')
    this.status.set({ wantsOffline: offline, problem: null })
    clearTimeout(this.trouble)
    if (offline) this.provider.disconnect()
    else void this.connect()
    this.look()
  }

  private async begin(): Promise<void> {
    // Not only once the server's copy is here: the example is there for who begins offline, too.
    if (this.room === EXAMPLE_ROOM && this.status.value.wantsOffline) addExample(this.doc)
    if (!this.trip.isEmpty() || this.status.value.wantsOffline) this.status.set({ loaded: true })
    if (!this.status.value.wantsOffline) await this.connect()
    this.look()
  }

  private async connect(): Promise<void> {
    this.expectSoon()
    await this.takeToken()
    if (!this.status.value.wantsOffline) this.provider.connect()
  }

  /** Have a token for the next connection. Without one, the provider is refused and tries again. */
  private async takeToken(): Promise<void> {
    const token = await this.server.currentToken().catch(() => null)
    if (token !== null) this.provider.params = { token }
  }

  private arrived(): void {
    if (this.room === EXAMPLE_ROOM) addExample(this.doc)
    this.isWell()
    this.status.set({ loaded: true, synced: true })
    this.look()
  }

  private isWell(): void {
    clearTimeout(this.trouble)
    this.trouble = undefined
    this.status.set({ problem: null })
    this.look()
  }

  private look(): void {
    const { state, unsaved, lastSavedAt } = this.confirm
    const { wantsOffline, problem } = this.status.value
    const connected = this.provider.wsconnected
    this.status.set({ state: state === 'offline' && !wantsOffline ? 'waiting' : state, unsaved, savedAt: lastSavedAt })
    if (!connected && !wantsOffline && !problem?.final) this.expectSoon()
  }

  /** Say what is wrong if there is no connection in a while. */
  private expectSoon(): void {
    this.trouble ??= setTimeout(async () => {
      this.trouble = undefined
      if (this.provider.wsconnected || this.status.value.wantsOffline || this.status.value.problem?.final) return
      const problem = await this.server.diagnose().then(
        refused => refused === null ? null : { text: REFUSED[refused.status] ?? `The server says: ${refused.message}`, final: false },
        () => ({ text: UNREACHABLE, final: false })
      )
      if (this.provider.wsconnected) return
      this.status.set({ problem, loaded: true })
      if (problem === null) {
        // It is back. If it was started anew, it knows no old tokens, and gave another one just now.
        await this.takeToken()
        if (!this.status.value.wantsOffline) this.provider.connect()
      }
      this.expectSoon()
    }, PATIENCE_MS)
  }

  private closed(code: number): void {
    clearTimeout(this.trouble)
    if (code === 4408) {
      for (const event of ['pointerdown', 'keydown']) addEventListener(event, () => this.provider.connect(), { once: true })
    }
    if (code === 4404) {
      // Or this browser's copy would bring it back one day.
      void this.copy.clearData()
    }
    this.status.set({ problem: { text: CLOSED[code] ?? `The server closed the connection (${code}).`, final: true, gone: code === 4404 } })
    this.look()
  }
}

/** Each window counts for itself, as it has a copy of its own. */
const storageOf = (me: Identity) => ({
  getItem: (key: string) => localStorage.getItem(`${key}/${me.key}`),
  setItem: (key: string, value: string) => localStorage.setItem(`${key}/${me.key}`, value),
  removeItem: (key: string) => localStorage.removeItem(`${key}/${me.key}`)
})
