/** What is needed of y-websocket's WebsocketProvider, of any version. */
export interface Provider {
  doc: { on: (event: any, listener: any) => unknown, off: (event: any, listener: any) => unknown }
  messageHandlers: unknown[]
  ws: unknown
  shouldConnect: boolean
  maxBackoffTime: number
  bcChannel: string
  on: (event: any, listener: any) => unknown
  off: (event: any, listener: any) => unknown
}

/** `localStorage`, or something like it. */
export interface ConfirmStorage {
  getItem: (key: string) => string | null
  setItem: (key: string, value: string) => void
  removeItem: (key: string) => void
}

export interface ConfirmOptions {
  /** Gives a fresh token. It is asked before the one that the server has ends, and before the provider comes back after a while. */
  token?: () => string | Promise<string>
  /** Keeps the count of unsaved edits over reloads. */
  storage?: ConfirmStorage
  /**
   * Resolves when the document was loaded from where it is kept locally: `persistence.whenSynced` of y-indexeddb. Before that
   * nothing is called saved.
   */
  loaded?: PromiseLike<unknown>
}

/** `offline`: not connected. `saving`: something isn't stored yet, or nobody knows. `saved`: all that the document holds is stored. */
export type ConfirmState = 'saved' | 'saving' | 'offline'

/** The server closed the connection for good: the provider doesn't come back by itself. */
export interface Closed {
  code: number
  reason: string
  /** What to do about it, for developers. */
  advice: string
}

/** A fresh token wasn't taken, or there was none. What may be done goes on until the old one ends. */
export interface Denied {
  reason: string
  /** What `token` failed with. */
  error?: unknown
}

export interface Expiring {
  /** Until the server closes the connection with 4401. */
  seconds: number
}

export interface ConfirmEvents {
  /** `state`, `unsaved`, `lastSavedAt` or `supported` is another one. */
  change: () => void
  /** `state` has become `saved`. */
  saved: () => void
  closed: (closed: Closed) => void
  denied: (denied: Denied) => void
  expiring: (expiring: Expiring) => void
}

export interface Confirm {
  readonly state: ConfirmState
  /** How many edits were made here and aren't known to be stored. */
  readonly unsaved: number
  /** When something was last confirmed as stored. */
  readonly lastSavedAt: Date | null
  /** Whether the server confirms; null until it has, `false` after 10 s without an answer: then `state` never becomes `saved`. */
  readonly supported: boolean | null
  /**
   * Resolves once everything that the document holds now is stored; while offline, that takes until it is online again.
   * Rejects if the server closes the connection for good, and if this is destroyed.
   */
  saved: () => Promise<void>
  on: <E extends keyof ConfirmEvents>(event: E, listener: ConfirmEvents[E]) => void
  off: <E extends keyof ConfirmEvents>(event: E, listener: ConfirmEvents[E]) => void
  /** Leave the provider as it was. Happens by itself when the document is destroyed. */
  destroy: () => void
}

/**
 * Watch what a provider's document has that its server hasn't stored.
 *
 * @throws TypeError The provider or an option isn't one.
 * @throws Error The provider is attached already.
 */
export function attachConfirm (provider: Provider, options?: ConfirmOptions): Confirm
