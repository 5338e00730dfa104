// What stock lib0, y-protocols and yjs write of what docs/reference/protocol.md shows: one JSON object, hexadecimal by example.
import * as encoding from 'lib0/encoding'
import * as Y from 'yjs'
import { Awareness, encodeAwarenessUpdate } from 'y-protocols/awareness'
import { writePermissionDenied } from 'y-protocols/auth'
import * as sync from 'y-protocols/sync'

const hex = bytes => Buffer.from(bytes).toString('hex').replace(/..(?!$)/g, '$& ')
const encoded = write => {
  const encoder = encoding.createEncoder()
  write(encoder)
  return encoding.toUint8Array(encoder)
}
const all = (values, write) => Object.fromEntries(values.map(([name, value]) => [name, hex(encoded(encoder => write(encoder, value)))]))
const same = values => values.map(value => [String(value), value])
const message = (type, write) => encoder => { encoding.writeVarUint(encoder, type); write(encoder) }

const doc = clientID => {
  const made = new Y.Doc()
  made.clientID = clientID
  made.on('update', (update, origin) => { if (origin !== 'in') made.last = update })
  return made
}
const [ann, bob] = [doc(1), doc(2)]
const edits = []
const edit = (by, change) => {
  change(by)
  edits.push(by.last)
  Y.applyUpdate(by === ann ? bob : ann, by.last, 'in')
}
edit(ann, doc => doc.getText('notes').insert(0, 'Hi'))
edit(ann, doc => doc.getText('notes').insert(2, '!'))
edit(ann, doc => doc.getMap('trip').set('title', 'Rome'))
edit(bob, doc => doc.getMap('trip').set('title', 'Oslo'))
edit(bob, doc => doc.getText('notes').delete(0, 1))
edit(bob, doc => doc.getText('notes').insert(0, 'X'))

const other = doc(42)
Y.applyUpdate(other, edits[0])
other.getText('notes').insert(2, '!')

const awareness = new Awareness(doc(42))
const states = state => {
  awareness.setLocalState(state)
  return encodeAwarenessUpdate(awareness, [42])
}
awareness.meta.set(42, { clock: 0, lastUpdated: 0 })
const present = states({ user: { name: 'Ann' } })
const gone = states(null)
awareness.destroy()

console.log(JSON.stringify({
  varUint: all(same([0, 127, 128, 300, 16384, 4294967295, Number.MAX_SAFE_INTEGER]), encoding.writeVarUint),
  string: all([['(empty)', ''], ...same(['Rome', 'ü🙂'])], encoding.writeVarString),
  varInt: all(same([3, -1, 64, -70, -300]), encoding.writeVarInt),
  Value: all([...same([null, undefined, true, false, 3, -70, 1.5, 0.1]), ['"x"', 'x'], ['[1, "a"]', [1, 'a']], ['{"n": 1}', { n: 1 }]], encoding.writeAny),
  Example: [
    encoded(message(0, encoder => sync.writeSyncStep1(encoder, new Y.Doc()))),
    encoded(message(0, encoder => sync.writeSyncStep2(encoder, new Y.Doc()))),
    encoded(message(0, encoder => sync.writeUpdate(encoder, edits[0]))),
    encoded(message(1, encoder => encoding.writeVarUint8Array(encoder, present))),
    encoded(message(1, encoder => encoding.writeVarUint8Array(encoder, gone))),
    encoded(message(1, encoder => encoding.writeVarUint8Array(encoder, new Uint8Array([0])))),
    encoded(message(2, encoder => writePermissionDenied(encoder, 'not allowed')))
  ].map(hex),
  edits: edits.map(hex),
  typed: hex(other.last),
  text: bob.getText('notes').toString(),
  stateVectors: [hex(Y.encodeStateVector(new Y.Doc())), hex(Y.encodeStateVector(other))]
}))
process.exit()
