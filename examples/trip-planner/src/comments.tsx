// Comments on the trip and on items, with replies. Resolved ones are out of the way, not gone.
import { useId, useState } from 'preact/hooks'
import type { Connection } from './connection'
import { announce, Avatar } from './fields'
import { Icon } from './icons'
import { COLORS } from './identity'
import type { Comment, Item, Reply, Target } from './trip'
import { when } from './words'

/** All that is said about the trip. */
export function Comments({ connection, comments, items, show }: { connection: Connection; comments: Comment[]; items: Item[]; show: (id: string) => void }) {
  const [resolved, setResolved] = useState(false)
  const closed = comments.filter(comment => comment.resolved).length
  const chosen = comments.filter(comment => comment.resolved === resolved)
  return (
    <section id="talk" class="panel card" aria-labelledby="talk-title">
      <header>
        <h2 id="talk-title">Comments</h2>
        <div class="choice" role="group" aria-label="Which comments">
          <button type="button" aria-pressed={!resolved} onClick={() => setResolved(false)}>Open {comments.length - closed}</button>
          <button type="button" aria-pressed={resolved} onClick={() => setResolved(true)}>Resolved {closed}</button>
        </div>
      </header>
      {chosen.length === 0 && <p class="nothing">{resolved ? 'Nothing was resolved yet.' : 'No questions open. Ask one here, or in the details of whatever it is about.'}</p>}
      <Said connection={connection} comments={chosen} about={target => {
        if (target.type !== 'item') return null
        const item = items.find(one => one.id === target.path)
        return item === undefined ? <span class="about">on something that was removed</span>
          : <button type="button" class="about link" onClick={() => show(item.id)}>{item.title || 'Untitled'}</button>
      }} />
      {!resolved && <Compose label="Comment on the trip" done="Comment" send={content => connection.trip.addComment({ type: 'trip', path: '' }, connection.me.name, content)} connection={connection} />}
    </section>
  )
}

/** Comments on one thing. */
export function Thread({ connection, comments, target }: { connection: Connection; comments: Comment[]; target: Target }) {
  return (
    <div class="thread">
      <Said connection={connection} comments={comments} />
      <Compose label="Comment on this" done="Comment" send={content => connection.trip.addComment(target, connection.me.name, content)} connection={connection} />
    </div>
  )
}

function Said({ connection, comments, about }: { connection: Connection; comments: Comment[]; about?: (target: Target) => preact.ComponentChildren }) {
  if (comments.length === 0) return null
  return <ul class="said">{comments.map(comment => <One key={comment.id} {...{ connection, comment, about }} />)}</ul>
}

function One({ connection, comment, about }: { connection: Connection; comment: Comment; about: ((target: Target) => preact.ComponentChildren) | undefined }) {
  const { trip, undo } = connection
  const [replying, setReplying] = useState(false)
  const { id, resolved, replies, target } = comment
  return (
    <li class={resolved ? 'resolved' : ''}>
      <Words {...comment} about={about?.(target)} />
      {replies.length > 0 && <ul class="replies">{replies.map(reply => <li key={reply.id}><Words {...reply} /></li>)}</ul>}
      {replying
        ? <Compose label={`Reply to ${comment.author}`} done="Reply" send={content => { trip.reply(id, connection.me.name, content); setReplying(false) }} cancel={() => setReplying(false)} connection={connection} />
        : <div class="row tight">
            {!resolved && <button type="button" class="link" onClick={() => setReplying(true)}>Reply</button>}
            <button type="button" class="link" onClick={() => {
              undo.stopCapturing()
              trip.setResolved(id, !resolved)
              announce(resolved ? 'Opened again' : 'Resolved')
            }}>{!resolved && <Icon name="check" size={15} />}{resolved ? 'Open again' : 'Resolve'}</button>
          </div>}
    </li>
  )
}

const Words = ({ author, at, content, about }: Reply & { about?: preact.ComponentChildren }) => (
  <>
    <div class="by">
      <Avatar small person={{ name: author || '?', color: colorOf(author), idle: false }} />
      <strong>{author || 'Somebody'}</strong> <time dateTime={at} title={new Date(at).toLocaleString()}>{when(at)}</time>
      {about}
    </div>
    <p>{content}</p>
  </>
)

function Compose({ label, done, send, cancel, connection: { undo } }: { label: string; done: string; send: (content: string) => void; cancel?: () => void; connection: Connection }) {
  const [content, setContent] = useState('')
  const id = useId()
  const submit = () => {
    if (content.trim() === '') return
    undo.stopCapturing()
    send(content.trim())
    setContent('')
    announce('Comment added')
  }
  return (
    <form class="compose" onSubmit={event => { event.preventDefault(); submit() }}>
      <label class="unseen" for={id}>{label}</label>
      <textarea
        id={id} rows={1} class="field boxed" placeholder={`${label}…`} value={content} maxLength={2000} ref={cancel && (area => { if (area && content === '') area.focus() })}
        onInput={event => setContent(event.currentTarget.value)}
        onKeyDown={event => {
          if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
            event.preventDefault()
            submit()
          }
          if (event.key === 'Escape') cancel?.()
        }}
      />
      {(content !== '' || cancel) && <div class="row tight"><button type="submit" class="primary small" disabled={content.trim() === ''}>{done}</button>{cancel && <button type="button" class="quiet small" onClick={cancel}>Cancel</button>}</div>}
    </form>
  )
}

/** A colour for somebody who may not be here now. */
function colorOf(name: string): string {
  let sum = 0
  for (const character of name) sum = (sum * 31 + character.codePointAt(0)!) % 9973
  return COLORS[sum % COLORS.length]!
}
