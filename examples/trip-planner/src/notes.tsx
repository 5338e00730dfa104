// Rich text with live cursors: Quill, bound to the text `notes` by y-quill.
import Quill from 'quill'
import type { EmbedBlot } from 'parchment'
import type { Op } from 'quill/core'
import QuillCursors from 'quill-cursors'
import 'quill/dist/quill.snow.css'
import { useEffect, useRef } from 'preact/hooks'
import { QuillBinding } from 'y-quill'
import type { Awareness } from 'y-protocols/awareness'
import type { Connection } from './connection'

Quill.register('modules/cursors', QuillCursors)

/** Stands for what another editor has put into the notes and this one doesn't know, such as a picture. */
class Unknown extends (Quill.import('blots/embed') as typeof EmbedBlot) {
  static override blotName = 'unknown'
  static override tagName = 'span'
  static override className = 'ql-unknown'
  static override create() {
    const node = super.create(true) as HTMLElement
    node.textContent = '▢'
    node.title = 'Something that this editor can’t show'
    return node
  }
}
Quill.register(Unknown)

/** Show what Quill would throw at. One thing stays one thing, so that positions are the same in the editor and in the document. */
function tolerate(quill: Quill): void {
  const known = (delta: Op[]) => delta.map(op => typeof op.insert === 'object' ? { ...op, insert: { [Unknown.blotName]: true } } : op)
  for (const method of ['setContents', 'updateContents'] as const) {
    const stock = quill[method].bind(quill)
    quill[method] = (delta, source) => stock(Array.isArray(delta) ? known(delta) : delta, source)
  }
}

const NAMED_MS = 4000
const FORMATS = ['bold', 'italic', 'underline', 'strike', 'header', 'list', 'blockquote', 'link', 'indent', 'unknown']
const BUTTONS = [
  ['ql-header', '2', 'Heading'], ['ql-bold', '', 'Bold'], ['ql-italic', '', 'Italic'], ['ql-strike', '', 'Crossed out'],
  ['ql-list', 'bullet', 'List'], ['ql-list', 'ordered', 'Numbered list'], ['ql-list', 'check', 'Checklist'], ['ql-link', '', 'Link']
] as const

/** Show somebody's name beside their cursor for a while after it moved. */
function nameCursors(cursors: QuillCursors, awareness: Awareness): () => void {
  const places = new Map<number, string>()
  const timers = new Map<number, ReturnType<typeof setTimeout>>()
  const changed = () => {
    for (const [client, state] of awareness.getStates()) {
      const place = JSON.stringify(state['cursor'] ?? null)
      if (client === awareness.clientID || places.get(client) === place) continue
      places.set(client, place)
      if (place === 'null') continue
      clearTimeout(timers.get(client))
      cursors.toggleFlag(String(client), true)
      timers.set(client, setTimeout(() => cursors.toggleFlag(String(client), false), NAMED_MS))
    }
  }
  awareness.on('change', changed)
  return () => {
    awareness.off('change', changed)
    for (const timer of timers.values()) clearTimeout(timer)
  }
}

export function Notes({ connection }: { connection: Connection }) {
  const place = useRef<HTMLDivElement>(null)
  const toolbar = useRef<HTMLDivElement>(null)
  const editor = useRef<HTMLDivElement>(null)
  useEffect(() => {
    const quill = new Quill(place.current!, {
      theme: 'snow',
      placeholder: 'Packing list, addresses, ideas…',
      formats: FORMATS,
      modules: {
        toolbar: toolbar.current!,
        cursors: { transformOnTextChange: true },
        // Undo is the trip's, and takes back one's own edits only.
        history: { maxStack: 0 },
        // Tab leaves the editor, as it leaves any other field.
        keyboard: { bindings: { tab: null, 'remove tab': null, indent: null, outdent: null } }
      }
    })
    tolerate(quill)
    quill.root.setAttribute('aria-label', 'Notes')
    quill.root.setAttribute('role', 'textbox')
    quill.root.setAttribute('aria-multiline', 'true')
    // Or the next edit of somebody else takes the focus back, from wherever it is by then.
    quill.root.addEventListener('blur', ({ relatedTarget }) => {
      const isElsewhere = document.activeElement !== quill.root && !editor.current!.contains(relatedTarget as Node | null)
      if (isElsewhere) document.getSelection()?.removeAllRanges()
    })
    const { awareness } = connection.provider
    const binding = new QuillBinding(connection.trip.notes, quill, awareness)
    connection.undo.addTrackedOrigin(binding)
    const stop = nameCursors(quill.getModule('cursors') as QuillCursors, awareness)
    return () => {
      stop()
      connection.undo.removeTrackedOrigin(binding)
      binding.destroy()
    }
  }, [connection])
  return (
    <section id="notes" class="panel card" aria-labelledby="notes-title" data-at="notes">
      <header><h2 id="notes-title">Notes</h2></header>
      <div class="editor" ref={editor}>
        <div ref={toolbar} role="toolbar" aria-label="Format">
          {BUTTONS.map(([name, value, label]) => <button type="button" class={name} value={value || undefined} aria-label={label} title={label} />)}
        </div>
        <div ref={place} />
      </div>
    </section>
  )
}
