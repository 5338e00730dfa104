// Who are you? Asked once in each window.
import { useEffect, useRef, useState } from 'preact/hooks'
import { Avatar } from './fields'
import { COLORS, type Identity } from './identity'

export function Welcome({ suggested, enter, cancel }: { suggested: Identity; enter: (identity: Identity) => void; cancel?: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null)
  const [name, setName] = useState(suggested.name)
  const [color, setColor] = useState(suggested.color)
  useEffect(() => {
    dialog.current!.showModal()
    dialog.current!.querySelector('input')!.select()
  }, [])
  const good = name.trim() !== '' && name.trim().length <= 40
  return (
    <dialog ref={dialog} class="welcome" aria-labelledby="welcome-title" onCancel={event => { if (cancel) cancel(); else event.preventDefault() }}>
      <form onSubmit={event => { event.preventDefault(); if (good) enter({ ...suggested, name: name.trim(), color }) }}>
        <h2 id="welcome-title">{cancel ? 'Your name' : 'Who is coming along?'}</h2>
        <p>{cancel ? 'What the others see.' : 'The others see your name beside your cursor. No account needed.'}</p>
        <div class="row">
          <Avatar person={{ name, color, idle: false }} />
          <input class="name" aria-label="Your name" value={name} maxLength={40} autocomplete="nickname" onInput={event => setName(event.currentTarget.value)} />
        </div>
        <fieldset class="colors"><legend>Your colour</legend>
          {COLORS.map((one, index) => <label style={{ '--color': one }}><input type="radio" name="color" value={one} checked={one === color} aria-label={`Colour ${index + 1}`} onChange={() => setColor(one)} /></label>)}
        </fieldset>
        <div class="row">
          <button type="submit" class="primary" disabled={!good}>{cancel ? 'Save' : 'Start planning'}</button>
          {cancel && <button type="button" class="quiet" onClick={cancel}>Cancel</button>}
        </div>
      </form>
    </dialog>
  )
}
