// Whoever is in an item stays in it when it moves, whoever moved it: elsewhere in the page, it is another element.
import { useLayoutEffect } from 'preact/hooks'

const FIELDS = 'button, input, select, textarea'

export function useKeptFocus(): void {
  const before = document.activeElement as HTMLElement | null
  const item = before?.closest<HTMLElement>('[data-item]')
  const index = item ? [...item.querySelectorAll(FIELDS)].indexOf(before!) : -1
  const selection = before instanceof HTMLTextAreaElement || before instanceof HTMLInputElement ? [before.selectionStart, before.selectionEnd] as const : null
  useLayoutEffect(() => {
    if (!item || index < 0 || document.activeElement === before) return
    const now = document.querySelector(`[data-item="${CSS.escape(item.dataset['item']!)}"]`)?.querySelectorAll<HTMLElement>(FIELDS)[index]
    if (now === undefined || document.activeElement !== document.body) return
    now.focus()
    if (selection !== null && (now instanceof HTMLTextAreaElement || now instanceof HTMLInputElement)) now.setSelectionRange(...selection)
  })
}
