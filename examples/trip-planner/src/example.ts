// The trip that a first visitor finds. Two who come at once, or offline, both put it there, and it is there once:
// they make the very same bytes, under the same client id, which Yjs takes for one edit that it heard of twice.
import * as Y from 'yjs'
import { Trip } from './trip'

export const EXAMPLE_ROOM = 'trip-lisbon'
// Of these bytes alone. Whoever changes the example gives it another one.
const CLIENT = 20261126
const MOMENT = '2026-05-01T09:30:00.000Z'

type Line = [day: number, type: string, title: string, time: string, cost: number | null, booking: string, notes?: string]
const ITEMS: Line[] = [
  [1, 'transport', 'Train from Porto to Lisboa Oriente', '08:30–11:25', 54, 'confirmed', 'Carriage 21. Seats on the left see the sea.'],
  [1, 'hotel', 'Check in at Casa do Jardim', '14:00', 312, 'confirmed', 'Breakfast is included.'],
  [1, 'attraction', 'Walk up to Miradouro da Graça', 'sunset', null, 'none'],
  [1, 'restaurant', 'Dinner in Alfama', '20:00', 60, 'pending'],
  [2, 'attraction', 'Jerónimos Monastery', '09:30', 36, 'none', 'Be there before ten, or queue for an hour.'],
  [2, 'restaurant', 'Pastéis de Belém', 'after that', 12, 'none'],
  [2, 'attraction', 'Tile museum', 'afternoon', 20, 'none'],
  [3, 'transport', 'Tram to Sintra', 'morning', 9, 'none'],
  [3, 'attraction', 'Pena Palace', '11:00', 40, 'pending'],
  [3, 'free', 'Nothing at all', 'afternoon', null, 'none']
]
const NOTES = [
  { insert: 'Before we go' }, { insert: '\n', attributes: { header: 2 } },
  { insert: 'Lisbon has seven hills: ' }, { insert: 'good shoes', attributes: { bold: true } }, { insert: '.\n' },
  { insert: 'Passports' }, { insert: '\n', attributes: { list: 'unchecked' } },
  { insert: 'Train tickets' }, { insert: '\n', attributes: { list: 'checked' } },
  { insert: 'Ask Rui for the key' }, { insert: '\n', attributes: { list: 'unchecked' } }
]

/** Put the example into a document that has nothing in it. */
export function addExample(doc: Y.Doc): void {
  if (Y.encodeStateVector(doc).length === 1) Y.applyUpdate(doc, exampleUpdate(), 'example')
}

/** The same bytes for everybody. */
export function exampleUpdate(): Uint8Array {
  const doc = new Y.Doc()
  doc.clientID = CLIENT
  const trip = new Trip(doc)
  doc.transact(() => {
    trip.title.insert(0, 'Three days in Lisbon')
    trip.description.insert(0, 'An example to play with. Open this page in a second window and watch both.')
    trip.notes.applyDelta(NOTES)
    doc.getMap('trip').set('owner_id', 'Ines')
    doc.getMap('metadata').set('created_at', MOMENT)
    doc.getMap('metadata').set('version', 1)
    doc.getMap('budget').set('EUR', 700)
    doc.getArray('itinerary').push(ITEMS.map(([day, type, title, time, cost, booking, notes], index) => map({
      id: `example-${index + 1}`, day, rank: index + 1, type, time_slot: time, booking_status: booking,
      ...(cost === null ? {} : { cost, currency: 'EUR' }), title: new Y.Text(title), notes: new Y.Text(notes ?? '')
    })))
    doc.getArray('comments').push([
      map({
        id: 'example-comment', target: { type: 'item', path: 'example-4' }, author_id: 'Ines', content: new Y.Text('Shall I book a table with fado?'),
        resolved: false, created_at: MOMENT,
        replies: Y.Array.from([map({ id: 'example-reply', author_id: 'Tom', content: new Y.Text('Yes! But not too late.'), created_at: MOMENT })])
      })
    ])
  })
  return Y.encodeStateAsUpdate(doc)
}

function map(entries: Record<string, unknown>): Y.Map<unknown> {
  return new Y.Map(Object.entries(entries))
}
