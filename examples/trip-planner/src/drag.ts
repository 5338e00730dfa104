// Dragging items with a mouse, a pen or a finger. Leaves to the page what a move is, and the keyboard.
import { useCallback, useEffect, useRef, useState } from 'preact/hooks'

/** Before which one of a day's other items. */
export interface Spot { day: number; index: number }
export interface Drag { id: string; title: string; x: number; y: number; spot: Spot }

const BEGINS_AFTER_PX = 5
// So near the edges the page scrolls.
const EDGE_PX = 70

export function useDrag(drop: (id: string, spot: Spot) => void): { drag: Drag | null; begin: (event: PointerEvent, id: string, title: string) => void } {
  const [drag, setDrag] = useState<Drag | null>(null)
  const end = useRef<(() => void) | null>(null)
  const dropped = useRef(drop)
  dropped.current = drop
  useEffect(() => () => end.current?.(), [])

  const begin = useCallback((event: PointerEvent, id: string, title: string) => {
    if (event.button !== 0 || end.current !== null) return
    const { pointerId, clientX, clientY } = event
    let at = { x: clientX, y: clientY }
    let now: Drag | null = null
    let frame = 0

    const look = () => {
      const spot = spotAt(at.y, id)
      if (spot !== null) setDrag(now = { id, title, ...at, spot })
    }
    const scroll = () => {
      const bottom = innerHeight - (document.querySelector<HTMLElement>('.tabs')?.offsetHeight ?? 0)
      const by = at.y < EDGE_PX ? at.y - EDGE_PX : Math.max(0, at.y - bottom + EDGE_PX)
      if (by !== 0) {
        scrollBy(0, by / 5)
        look()
      }
      frame = requestAnimationFrame(scroll)
    }
    const move = (event: PointerEvent) => {
      if (event.pointerId !== pointerId) return
      at = { x: event.clientX, y: event.clientY }
      if (now === null && Math.hypot(at.x - clientX, at.y - clientY) < BEGINS_AFTER_PX) return
      if (now === null) frame = requestAnimationFrame(scroll)
      look()
    }
    const up = (event: PointerEvent) => {
      if (event.pointerId !== pointerId) return
      const last = now
      stop()
      if (last !== null) dropped.current(id, last.spot)
    }
    const escape = (event: KeyboardEvent) => { if (event.key === 'Escape') stop() }
    const stop = () => {
      cancelAnimationFrame(frame)
      end.current = now = null
      setDrag(null)
      for (const [type, listener] of listeners) removeEventListener(type, listener as EventListener)
    }
    const listeners = [['pointermove', move], ['pointerup', up], ['pointercancel', stop], ['blur', stop], ['keydown', escape]] as const
    for (const [type, listener] of listeners) addEventListener(type, listener as EventListener)
    end.current = stop
  }, [])
  return { drag, begin }
}

/** The nearest day, and how many of its other items are above. */
function spotAt(y: number, id: string): Spot | null {
  const days = [...document.querySelectorAll<HTMLElement>('[data-day]')]
  const distance = (day: HTMLElement) => {
    const { top, bottom } = day.getBoundingClientRect()
    return Math.max(top - y, y - bottom, 0)
  }
  const day = days.sort((a, b) => distance(a) - distance(b))[0]
  if (day === undefined) return null
  const others = [...day.querySelectorAll<HTMLElement>('[data-item]')].filter(item => item.dataset['item'] !== id)
  const index = others.filter(item => {
    const { top, height } = item.getBoundingClientRect()
    return top + height / 2 < y
  }).length
  return { day: Number(day.dataset['day']), index }
}
