// What others see of this window: at which part of the trip somebody is, and whether they are there at all.
import type { Awareness } from 'y-protocols/awareness'

const IDLE_AFTER_MS = 60_000

/** Follow focus (into elements with `data-at`) and signs of life, and show both. Returns what ends it. */
export function showPresence(awareness: Awareness): () => void {
  const show = (key: 'at' | 'idle', value: unknown) => {
    if (awareness.getLocalState()?.[key] !== value) awareness.setLocalStateField(key, value)
  }
  const focused = () => show('at', document.activeElement?.closest<HTMLElement>('[data-at]')?.dataset['at'] ?? null)
  let timer: ReturnType<typeof setTimeout>
  const alive = () => {
    show('idle', false)
    clearTimeout(timer)
    timer = setTimeout(() => show('idle', true), IDLE_AFTER_MS)
  }
  const leaving = () => setTimeout(focused)
  document.addEventListener('focusin', focused)
  document.addEventListener('focusout', leaving)
  const signs = ['pointerdown', 'pointermove', 'keydown', 'scroll', 'focus'] as const
  for (const sign of signs) addEventListener(sign, alive, { passive: true, capture: true })
  alive()
  return () => {
    clearTimeout(timer)
    document.removeEventListener('focusin', focused)
    document.removeEventListener('focusout', leaving)
    for (const sign of signs) removeEventListener(sign, alive, { capture: true })
  }
}
