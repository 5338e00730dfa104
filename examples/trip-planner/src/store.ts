// A value that components watch.
import { useEffect, useReducer, useState } from 'preact/hooks'
import type { Awareness } from 'y-protocols/awareness'
import type * as Y from 'yjs'

export class Store<T extends object> {
  private readonly watchers = new Set<() => void>()

  constructor(public value: T) {}

  set(part: Partial<T>): void {
    if ((Object.keys(part) as (keyof T)[]).every(key => Object.is(this.value[key], part[key]))) return
    this.value = { ...this.value, ...part }
    for (const watcher of this.watchers) watcher()
  }

  watch(watcher: () => void): () => void {
    this.watchers.add(watcher)
    return () => this.watchers.delete(watcher)
  }
}

export function useStore<T extends object>(store: Store<T>): T {
  const [, again] = useReducer<number, void>(count => count + 1, 0)
  useEffect(() => store.watch(() => again()), [store])
  return store.value
}

/** Render again whenever the document has changed. Trips are small: reading one anew costs less than to know what changed. */
export function useDoc(doc: Y.Doc): void {
  const [, again] = useReducer<number, void>(count => count + 1, 0)
  useEffect(() => {
    const changed = () => again()
    doc.on('afterTransaction', changed)
    return () => doc.off('afterTransaction', changed)
  }, [doc])
}

export interface Person { client: number; name: string; color: string; at: string | null; idle: boolean; me: boolean }

/** Who is here, oneself first, then by name. */
export function usePeople(awareness: Awareness): Person[] {
  const [people, setPeople] = useState<Person[]>([])
  useEffect(() => {
    const look = () => {
      const found: Person[] = []
      for (const [client, state] of awareness.getStates()) {
        const user = state?.['user']
        if (typeof user?.name !== 'string') continue
        const color = /^#[0-9a-f]{6}$/i.test(user.color) ? user.color : '#555555'
        found.push({ client, name: user.name, color, at: typeof state['at'] === 'string' ? state['at'] : null, idle: state['idle'] === true, me: client === awareness.clientID })
      }
      found.sort((a, b) => Number(b.me) - Number(a.me) || a.name.localeCompare(b.name) || a.client - b.client)
      // Cursors move all the time; who is here and where seldom changes.
      setPeople(before => JSON.stringify(before) === JSON.stringify(found) ? before : found)
    }
    awareness.on('change', look)
    look()
    return () => awareness.off('change', look)
  }, [awareness])
  return people
}
