// Fields that are bound to the document, and small parts that all panels use.
import type { ButtonHTMLAttributes, ComponentChildren } from 'preact'
import { useEffect, useId, useLayoutEffect, useRef, useState } from 'preact/hooks'
import type * as Y from 'yjs'
import { Icon, type IconName } from './icons'
import type { Person } from './store'
import { AMOUNT_MAX, setText } from './trip'
import { initials } from './words'

type Area = HTMLTextAreaElement
type TextFieldProps = { text: Y.Text; label: string; placeholder?: string; class?: string; lines?: boolean; id?: string; onEnter?: () => void }

const GROWS = CSS.supports('field-sizing', 'content')

/** A text that several people can type in at once. It grows with what is in it; Enter ends it unless it may have `lines`. */
export function TextField({ text, label, placeholder, lines = false, id, onEnter, ...rest }: TextFieldProps) {
  const ref = useRef<Area>(null)
  useEffect(() => {
    const area = ref.current!
    area.value = text.toString()
    grow(area)
    const changed = (event: Y.YTextEvent) => {
      const now = text.toString()
      if (area.value === now) return
      const [start, end] = [area.selectionStart, area.selectionEnd].map(caret => moved(caret, event))
      area.value = now
      if (document.activeElement === area) area.setSelectionRange(start!, end!)
      grow(area)
    }
    text.observe(changed)
    return () => text.unobserve(changed)
  }, [text])
  return (
    <textarea
      ref={ref} id={id} rows={lines ? 2 : 1} aria-label={label} placeholder={placeholder} class={`field ${rest.class ?? ''}`} spellcheck={lines}
      onInput={({ currentTarget: area }) => {
        if (!lines) area.value = area.value.replace(/\n/g, ' ')
        setText(text, area.value)
        grow(area)
      }}
      onKeyDown={event => {
        if (event.key !== 'Enter' || lines || event.isComposing) return
        event.preventDefault()
        if (onEnter) onEnter()
        else event.currentTarget.blur()
      }}
    />
  )
}

/** Where a caret is after a change of the text before it. */
function moved(caret: number, event: Y.YTextEvent): number {
  let index = 0
  for (const { retain, insert, delete: gone } of event.delta) {
    if (retain !== undefined) index += retain
    if (index > caret) break
    if (typeof insert === 'string') {
      caret += insert.length
      index += insert.length
    }
    if (gone !== undefined) caret = Math.max(index, caret - gone)
  }
  return caret
}

function grow(area: Area): void {
  if (GROWS) return
  area.style.height = 'auto'
  area.style.height = `${area.scrollHeight}px`
}

interface ValueFieldProps {
  value: string
  save: (value: string) => void
  [attribute: string]: unknown
}

/** A value that is set as a whole, when somebody is done with it. */
export function ValueField({ value, save, ...rest }: ValueFieldProps) {
  const ref = useRef<HTMLInputElement>(null)
  useEffect(() => {
    if (document.activeElement !== ref.current) ref.current!.value = value
  }, [value])
  const latest = useRef({ value, save })
  latest.current = { value, save }
  useLayoutEffect(() => () => {
    // Somebody else has moved what it is about, while this was being typed.
    const { value, save } = latest.current
    const input = ref.current
    if (input !== null && input.value.trim() !== value && input.checkValidity()) save(input.value.trim())
  }, [])
  return (
    <input
      {...rest} ref={ref}
      onChange={({ currentTarget: input }) => input.checkValidity() ? save(input.value.trim()) : announce(`Not saved: ${input.title || input.validationMessage}`)}
      onBlur={({ currentTarget: input }) => {
        // As it was understood, once it was.
        setTimeout(() => { if (document.activeElement !== input) input.value = latest.current.value })
      }}
      onKeyDown={event => {
        if (event.key === 'Escape') event.currentTarget.value = value
        if (event.key === 'Enter' || event.key === 'Escape') event.currentTarget.blur()
      }}
    />
  )
}

/** An amount as somebody types it, in their own way; null if it is none. */
export function readAmount(typed: string): number | null {
  const amount = Number(typed.replace(/\s/g, '').replace(',', '.'))
  return typed.trim() !== '' && Number.isFinite(amount) && amount >= 0 ? Math.min(amount, AMOUNT_MAX) : null
}

type ButtonProps = ButtonHTMLAttributes<HTMLButtonElement> & { icon: IconName; label: string; class?: string }

/** A button that shows only an icon. */
export const IconButton = ({ icon, label, class: name = '', ...rest }: ButtonProps) => (
  <button type="button" {...rest} class={`icon-button ${name}`} aria-label={label} title={label}><Icon name={icon} /></button>
)

export function Avatar({ person: { name, color, idle }, small = false }: { person: Pick<Person, 'name' | 'color' | 'idle'>; small?: boolean }) {
  return (
    <span class={`avatar ${small ? 'tiny' : ''} ${idle ? 'idle' : ''}`} style={{ '--color': color }} data-initials={initials(name)} aria-hidden="true">
      {idle && <span class="asleep"><Icon name="moon" size={10} /></span>}
    </span>
  )
}

/** A button, and what it opens below it. */
export function Menu({ button, class: name = '', children }: { button: (props: { 'aria-expanded': boolean; 'aria-controls': string; onClick: () => void }) => ComponentChildren; class?: string; children: ComponentChildren }) {
  const [open, setOpen] = useState(false)
  const ref = useRef<HTMLDivElement>(null)
  const id = useId()
  useEffect(() => {
    if (!open) return
    const outside = (event: Event) => { if (!ref.current!.contains(event.target as Node)) setOpen(false) }
    const escape = (event: KeyboardEvent) => {
      if (event.key !== 'Escape') return
      setOpen(false)
      ref.current!.querySelector<HTMLElement>('[aria-expanded]')?.focus()
    }
    addEventListener('pointerdown', outside)
    addEventListener('focusin', outside)
    addEventListener('keydown', escape)
    return () => {
      removeEventListener('pointerdown', outside)
      removeEventListener('focusin', outside)
      removeEventListener('keydown', escape)
    }
  }, [open])
  return (
    <div class={`menu ${name}`} ref={ref}>
      {button({ 'aria-expanded': open, 'aria-controls': id, onClick: () => setOpen(!open) })}
      <div class="menu-body" id={id} hidden={!open}>{open && children}</div>
    </div>
  )
}

/** Say something to whoever can't see it, and for a moment to everybody else too if it is worth `showing`. */
export function announce(text: string): void {
  const place = document.getElementById('announcements')
  // Said again, the same words would be no change.
  if (place) place.textContent = place.textContent === text ? `${text}\u00a0` : text
}
