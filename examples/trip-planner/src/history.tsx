// The past of the trip: versions that the server has kept, what changed, and bringing one back.
import { useEffect, useRef, useState } from 'preact/hooks'
import type { Connection } from './connection'
import { announce, IconButton } from './fields'
import { Icon } from './icons'
import { Refused, type Version } from './server'
import { describe, names, when, type Group, type Line } from './words'

type View = 'since' | 'in'
type Shown = { groups: Group[] } | { failed: string } | null

export function History({ connection, close }: { connection: Connection; close: () => void }) {
  const { server } = connection
  const dialog = useRef<HTMLDialogElement>(null)
  const [versions, setVersions] = useState<Version[] | null>(null)
  const [failed, setFailed] = useState('')
  const [chosen, setChosen] = useState<Version | null>(null)
  const [view, setView] = useState<View>('since')
  const [shown, setShown] = useState<Shown>(null)
  const [restored, setRestored] = useState<{ before: Version | null } | null>(null)
  const [busy, setBusy] = useState(false)
  const [label, setLabel] = useState('')

  const load = async () => {
    try {
      setVersions(await server.versions())
      setFailed('')
    } catch (error) {
      setVersions([])
      if (!(error instanceof Refused && error.status === 404)) setFailed(sentence(error))
    }
  }
  useEffect(() => {
    dialog.current!.showModal()
    void load()
  }, [])

  const show = async (version: Version, how: View) => {
    setChosen(version)
    setView(how)
    setShown(null)
    try {
      const index = versions!.findIndex(one => one.id === version.id)
      const before = versions![index + 1]
      const [changes, newer] = await Promise.all(how === 'since'
        ? [server.diff(version.id, 'now'), server.contentAt('now')]
        : [server.diff(before === undefined ? 'seq:0' : before.id, version.id), server.contentAt(version.id)])
      setShown({ groups: describe(changes, newer) })
    } catch (error) {
      setShown({ failed: sentence(error) })
    }
  }
  const act = async (what: () => Promise<void>) => {
    setBusy(true)
    try {
      await what()
      await load()
    } catch (error) {
      setFailed(sentence(error))
    }
    setBusy(false)
  }
  const restore = (version: number) => act(async () => {
    const { done, version_before: before } = await server.restore(version)
    setRestored(done ? { before } : { before: null })
    setChosen(null)
    announce(done ? 'Restored' : 'The trip is like that already')
  })

  return (
    <dialog ref={dialog} class={`history ${chosen === null ? '' : 'has-chosen'}`} aria-labelledby="history-title" onClose={close} onClick={event => { if (event.target === event.currentTarget) event.currentTarget.close() }}>
      <header><h2 id="history-title">History</h2><IconButton icon="close" label="Close" onClick={() => dialog.current!.close()} /></header>
      {failed && <p class="banner" role="alert">{failed} <button type="button" class="link" onClick={() => void load()}>Try again</button></p>}
      {restored && <p class="banner good" role="status">Restored, for everybody. {restored.before && <button type="button" class="link" disabled={busy} onClick={() => void restore(restored.before!.id)}>Take that back</button>}</p>}
      <div class="columns">
        <div class="list">
          <form class="row" onSubmit={event => {
            event.preventDefault()
            void act(async () => { await server.keepVersion(label.trim()); setLabel('') })
          }}>
            <input aria-label="Name of the version" placeholder="Keep this as…" value={label} maxLength={100} onInput={event => setLabel(event.currentTarget.value)} />
            <button type="submit" class="primary small" disabled={busy || label.trim() === ''}>Keep</button>
          </form>
          {versions === null ? <p class="nothing">Loading…</p>
            : versions.length === 0 ? <p class="nothing">No versions yet. The server keeps one every minute while somebody edits; with a name, it stays for ever.</p>
              : <ol>{versions.map(version => (
                  <li key={version.id}><button type="button" class="version" aria-pressed={chosen?.id === version.id} onClick={() => void show(version, view)}>
                    <strong>{version.label ?? when(version.taken_at)}</strong>
                    <span>{version.label ? `${when(version.taken_at)} · ` : ''}{version.kind === 'restore' ? 'before a restore' : names(version.users) || 'nobody'}</span>
                  </button></li>
                ))}</ol>}
        </div>
        <div class="changes" aria-live="polite" aria-busy={chosen !== null && shown === null}>
          {chosen === null ? <p class="nothing">Choose a version to see what has changed.</p> : (
            <>
              <div class="row between">
                <button type="button" class="quiet small only-narrow" onClick={() => setChosen(null)}><Icon name="back" />All versions</button>
                <div class="choice" role="group" aria-label="Which changes">
                  <button type="button" aria-pressed={view === 'since'} onClick={() => void show(chosen, 'since')}>Since then</button>
                  <button type="button" aria-pressed={view === 'in'} onClick={() => void show(chosen, 'in')}>In this version</button>
                </div>
                <button type="button" class="primary small" disabled={busy} onClick={() => void restore(chosen.id)}>Restore</button>
              </div>
              {shown === null ? <p class="nothing">Comparing…</p>
                : 'failed' in shown ? <p class="banner" role="alert">{shown.failed}</p>
                  : shown.groups.length === 0 ? <p class="nothing">{view === 'since' ? 'Nothing: the trip is like that now.' : 'Nothing that shows.'}</p>
                    : <ul class="groups">{shown.groups.map(group => (
                        <li><h3>{group.title}</h3>{group.authors && <span class="who">{group.authors}</span>}{group.lines.map(line => <Told {...line} />)}</li>
                      ))}</ul>}
            </>
          )}
        </div>
      </div>
    </dialog>
  )
}

const Told = ({ kind, text, before, after, runs }: Line) => (
  <p class={`told ${kind}`}>
    {text && <span class="label">{text}{(before ?? after) !== undefined && ': '}</span>}
    {before !== undefined && before !== '' && <del>{before}</del>}{before !== undefined && after !== undefined && ' '}
    {after !== undefined && after !== '' && <ins>{after}</ins>}
    {runs?.map(run => run.kind === 'inserted' ? <ins>{run.text}</ins> : run.kind === 'removed' ? <del>{run.text}</del> : run.kind === 'formatted' ? <em>{run.text}</em> : run.text)}
  </p>
)

function sentence(error: unknown): string {
  if (error instanceof Refused) return `That didn’t work: ${error.message}.`
  return 'The server can’t be reached, and the past is kept there.'
}
