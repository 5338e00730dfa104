// Real Yjs as a referee: one JSON request a line on stdin, one JSON answer a line on stdout.
//
// {id, op, ...} -> {id, ok: answer} or {id, failed: message}. Updates and state vectors are base64.
// Used through tests/support/yjs.py, which documents the operations.
import * as readline from 'node:readline'
import * as Y from 'yjs'

console.error = console.warn = () => {}

const bytes = text => new Uint8Array(Buffer.from(text, 'base64'))
const base64 = value => Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('base64')
const object = entries => Object.fromEntries(entries)

// ---------------------------------------------------------------------------------------------- content as JSON

// Any value as JSON; what JSON can't say is tagged: {"$": kind, ...}.
const tagged = value => {
  if (value === undefined) return { $: 'undefined' }
  if (value === null || typeof value === 'boolean' || typeof value === 'string') return value
  if (typeof value === 'bigint') return { $: 'bigint', v: String(value) }
  if (typeof value === 'number') {
    return Object.is(value, -0) || !Number.isFinite(value)
      ? { $: 'number', v: Object.is(value, -0) ? '-0' : String(value) }
      : value
  }
  // Not instanceof: an object whose key `__proto__` has bytes got them for its prototype.
  if (ArrayBuffer.isView(value)) return { $: 'binary', v: base64(value) }
  if (Array.isArray(value)) return value.map(tagged)
  if (value instanceof Y.Doc) {
    const { guid, meta, autoLoad, gc, shouldLoad } = value
    return { $: 'doc', guid: tagged(guid), meta: tagged(meta), autoLoad: tagged(autoLoad), gc: tagged(gc), shouldLoad: tagged(shouldLoad) }
  }
  if (value instanceof Y.AbstractType) return type(value)
  const plain = object(Object.entries(value).map(([key, member]) => [key, tagged(member)]))
  return '$' in plain ? { $: 'object', v: plain } : plain
}

// Neighbours with equal attributes count as one: formatting marks without effect split runs on some peers only.
const delta = text => {
  const runs = []
  let last = null
  for (const { insert, attributes = {} } of text.toDelta()) {
    const key = JSON.stringify(tagged(object(Object.entries(attributes).sort())))
    if (typeof insert === 'string' && last?.key === key && typeof last.insert === 'string') last.insert += insert
    else runs.push(last = { insert, attributes, key })
  }
  return runs.map(({ insert, attributes }) => Object.keys(attributes).length === 0
    ? { insert: tagged(insert) }
    : { insert: tagged(insert), attributes: tagged(attributes) })
}

const type = value => {
  if (value instanceof Y.XmlText) return { $: 'xml-text', delta: delta(value), attributes: tagged(value.getAttributes()) }
  if (value instanceof Y.Text) return { $: 'text', delta: delta(value), string: value.toString() }
  if (value instanceof Y.Array) return { $: 'array', v: value.toArray().map(tagged) }
  if (value instanceof Y.XmlHook) return { $: 'xml-hook', name: value.hookName, v: members(value) }
  if (value instanceof Y.Map) return { $: 'map', v: members(value) }
  if (value instanceof Y.XmlElement) {
    return { $: 'xml-element', name: value.nodeName, attributes: tagged(value.getAttributes()), children: value.toArray().map(tagged) }
  }
  if (value instanceof Y.XmlFragment) return { $: 'xml-fragment', children: value.toArray().map(tagged) }
  return raw(value)
}

const members = map => object([...map.entries()].map(([key, value]) => [key, tagged(value)]))

// Whatever is in a type, whatever it is used as: its sequence and its map.
const raw = value => {
  const list = []
  let text = null
  for (let item = value._start; item !== null; item = item.right) {
    if (item.deleted) continue
    if (item.content instanceof Y.ContentString) {
      if (text === null) list.push(text = { $: 'string', v: '' })
      text.v += item.content.str
      continue
    }
    text = null
    list.push(...contents(item.content))
  }
  const map = object([...value._map].filter(([, item]) => !item.deleted).map(([key, item]) => [key, contents(item.content)]))
  return { $: 'raw', list, map }
}

const contents = content => {
  if (content instanceof Y.ContentString) return [{ $: 'string', v: content.str }]
  if (content instanceof Y.ContentFormat) return [{ $: 'format', key: content.key, v: tagged(content.value) }]
  if (content instanceof Y.ContentType) {
    const { type } = content
    return [{ $: 'type', kind: type.constructor.name, name: type.nodeName ?? type.hookName ?? null, v: raw(type) }]
  }
  return content.getContent().map(tagged)
}

const roots = {
  text: (doc, name) => type(doc.getText(name)),
  array: (doc, name) => type(doc.getArray(name)),
  map: (doc, name) => type(doc.getMap(name)),
  xml: (doc, name) => type(doc.getXmlFragment(name)),
  raw: (doc, name) => raw(doc.get(name)),
  'json-text': (doc, name) => tagged(doc.getText(name).toJSON()),
  'json-array': (doc, name) => tagged(doc.getArray(name).toJSON()),
  'json-map': (doc, name) => tagged(doc.getMap(name).toJSON()),
  'json-xml': (doc, name) => tagged(doc.getXmlFragment(name).toJSON())
}

const snapshot = (doc, kinds) => {
  const content = {}
  for (const [name, kind] of Object.entries(kinds)) {
    if (name === '*') {
      for (const each of [...doc.share.keys()].sort()) content[each] = roots[kind](doc, each)
    } else {
      content[name] = roots[kind](doc, name)
    }
  }
  return {
    content,
    state_vector: object(Y.decodeStateVector(Y.encodeStateVector(doc))),
    pending: doc.store.pendingStructs !== null || doc.store.pendingDs !== null
  }
}

const load = (updates, { gc = true } = {}) => {
  const doc = new Y.Doc({ gc })
  for (const update of updates) Y.applyUpdate(doc, bytes(update))
  return doc
}

// ---------------------------------------------------------------------------------------------- documents by chance

const random = seed => { // mulberry32
  let a = seed >>> 0
  const next = () => {
    a = (a + 0x6D2B79F5) >>> 0
    let t = Math.imul(a ^ (a >>> 15), 1 | a)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
  const below = n => Math.floor(next() * n)
  return { next, below, pick: list => list[below(list.length)], chance: p => next() < p }
}

const ODD_NUMBERS = [0, -0, 1, -1, 63, 64, -64, 127, 128, 2 ** 31 - 1, 2 ** 31, -(2 ** 31), 2 ** 53 - 1, 2 ** 53, -(2 ** 53), 2 ** 63,
  1e21, 1e300, -1e300, 5e-324, 1.7976931348623157e308, 0.1, 0.1 + 0.2, 1 / 3, 1.5, 1e-7, 0.10793126209409987, 3.4028234663852886e38]
const ODD_STRINGS = ['', 'a', 'ü', '漢字', '😀', '\ufeffbom', '\u0000', '\u2028', '\ufffd', '"\\/\b\f\n\r\t', '__proto__', 'undefined', '\ud83d', '\ude00x',
  'a'.repeat(200), '2024-01-05', '550e8400-e29b-41d4-a716-446655440000', '1234567890123456789', 'crdt-sync:stand-in:', 'crdt-sync:stand-in:b']
const ODD_BIGINTS = [0n, 1n, -1n, 2n ** 53n, -(2n ** 63n), 2n ** 63n - 1n]

const generate = ({ seed, clients = 2, steps = 30, kinds = ['text', 'array', 'map', 'xml'], emoji = false, odd = false, gc = true, exchange = 0.5, undo = false, shuffle = 0 }) => {
  const rng = random(seed)
  const { below, pick, chance } = rng
  const letters = emoji ? ['😀', '🙂', '👍🏽', 'a', 'b', 'ü', '𝒳y'] : ['a', 'b', 'c', ' ', 'ü', '漢', 'hello']
  const word = () => Array.from({ length: 1 + below(4) }, () => pick(letters)).join('')

  const number = () => odd ? pick([...ODD_NUMBERS, rng.next(), rng.next() * 10 ** (below(40) - 20)]) : below(1000)
  const json = depth => { // what JSON.stringify can say, and so embeds and formats
    const kind = below(depth > 3 ? 4 : 6)
    if (kind === 0) return odd ? pick(ODD_STRINGS) : word()
    if (kind === 1) { const n = number(); return n }
    if (kind === 2) return chance(0.5)
    if (kind === 3) return null
    if (kind === 4) return Array.from({ length: below(4) }, () => json(depth + 1))
    return object(Array.from({ length: below(4) }, () => [odd ? pick(ODD_STRINGS) || 'k' : word(), json(depth + 1)]).filter(([key]) => key !== '__proto__'))
  }
  const value = depth => {
    if (odd && chance(0.3)) {
      return pick([
        () => undefined, () => pick(ODD_BIGINTS), () => -0, () => NaN, () => Infinity, () => -Infinity, () => new Uint8Array([1, 2, 3]),
        () => new Uint8Array(Buffer.from('crdt-sync:stand-in:}')), () => [undefined, 1n, -0, { a: 5n }], () => ({ u: undefined, b: 7n, z: -0 })
      ])()
    }
    return json(depth)
  }
  const listed = each => each === undefined || typeof each === 'bigint' ? [each] : each // what a sequence takes
  // Yjs makes text of an embedded string, and of an empty one a struct of length 0 that breaks every peer.
  const embeddable = each => each === null || typeof each === 'string' ? { each } : each
  const subdoc = () => new Y.Doc({
    guid: 'guid-' + below(1000), autoLoad: chance(0.3), gc: chance(0.7), shouldLoad: false, ...(chance(0.5) ? { meta: value(2) } : {})
  })
  const child = depth => pick([
    () => new Y.Text(word()),
    () => Y.Array.from([value(1), value(1), value(1)].map(listed)),
    () => { const map = new Y.Map(); map.set('k', value(1)); return map },
    () => depth > 4 ? new Y.Text('deep') : (() => { const map = new Y.Map(); map.set('inner', child(depth + 1)); return map })(),
    () => { const element = new Y.XmlElement(pick(['p', 'crdt-sync:stand-in:p'])); element.setAttribute('a', 'v'); return element },
    () => { const hook = new Y.XmlHook('hook'); hook.set('k', value(1)); return hook },
    () => new Y.XmlText(word())
  ].slice(0, odd ? 7 : 4))()
  const anything = () => odd && chance(0.1) ? subdoc() : chance(0.3) ? child(0) : value(0)

  const edits = {
    text: text => {
      const length = text.length
      const at = below(length + 1)
      const roll = below(10)
      if (roll < 5 || length === 0) text.insert(at, word(), chance(0.2) ? { bold: true } : undefined)
      else if (roll < 7) text.delete(at, Math.min(1 + below(3), length - at))
      else if (roll < 9) text.format(at, Math.min(1 + below(4), length - at), { [pick(['bold', 'link'])]: chance(0.3) ? null : json(1) })
      else text.insertEmbed(at, odd && chance(0.2) ? child(0) : odd && chance(0.4) ? -0 : embeddable(json(0)))
    },
    array: array => {
      const length = array.length
      const at = below(length + 1)
      const roll = below(10)
      if (roll < 7 || length === 0) array.insert(at, Array.from({ length: 1 + below(3) }, () => listed(anything())))
      else if (roll < 9) array.delete(at, Math.min(1 + below(3), length - at))
      else inside(array.get(below(length)))
    },
    map: map => {
      const key = pick(['a', 'b', 'c', 'ü', ''])
      const roll = below(10)
      if (roll < 7) map.set(key, anything())
      else if (roll < 8) map.delete(key)
      else inside(map.get(key))
    },
    xml: fragment => {
      const length = fragment.length
      const at = below(length + 1)
      const roll = below(10)
      if (roll < 5 || length === 0) fragment.insert(at, [chance(0.5) ? new Y.XmlElement(pick(['p', 'div'])) : new Y.XmlText(word())])
      else if (roll < 6) fragment.delete(at, Math.min(1, length - at))
      else if (fragment instanceof Y.XmlElement && roll < 8) fragment.setAttribute(pick(['class', 'id']), odd ? value(1) : word())
      else inside(fragment.get(below(length)))
    }
  }
  const inside = value => {
    if (value instanceof Y.Text) edits.text(value)
    else if (value instanceof Y.Array) edits.array(value)
    else if (value instanceof Y.Map) edits.map(value)
    else if (value instanceof Y.XmlFragment) edits.xml(value)
  }

  const getters = { text: 'getText', array: 'getArray', map: 'getMap', xml: 'getXmlFragment' }
  const log = []
  const docs = Array.from({ length: clients }, (_, i) => {
    const doc = new Y.Doc({ gc })
    doc.clientID = chance(0.5) ? i + 1 : below(2 ** 32)
    doc.heard = 0
    doc.types = object(kinds.map(kind => [kind, doc[getters[kind]](kind)]))
    if (undo) doc.undoer = new Y.UndoManager(Object.values(doc.types), { captureTimeout: 0 })
    doc.on('update', (update, origin) => { if (origin !== 'remote') log.push({ update, author: doc }) })
    return doc
  })
  const hear = (doc, upTo) => {
    for (; doc.heard < upTo; doc.heard++) {
      const { update, author } = log[doc.heard]
      if (author !== doc) Y.applyUpdate(doc, update, 'remote')
    }
  }
  for (let step = 0; step < steps; step++) {
    const doc = pick(docs)
    if (chance(exchange)) hear(doc, doc.heard + below(log.length - doc.heard + 1))
    if (undo && chance(0.2)) {
      doc.undoer[chance(0.6) ? 'undo' : 'redo']()
      continue
    }
    const edit = () => { const kind = pick(kinds); edits[kind](doc.types[kind]) }
    if (chance(0.2)) doc.transact(() => { edit(); edit(); edit() })
    else edit()
  }
  // Hearing can lead to edits: Yjs cleans up formatting marks that have become redundant.
  while (docs.some(doc => doc.heard < log.length)) for (const doc of docs) hear(doc, log.length)
  const updates = log.map(({ update }) => update)
  const authors = log.map(({ author }) => docs.indexOf(author))
  for (let i = 0; shuffle > 0 && i < updates.length; i++) {
    const j = Math.min(updates.length - 1, i + below(shuffle))
    ;[updates[i], updates[j]] = [updates[j], updates[i]]
    ;[authors[i], authors[j]] = [authors[j], authors[i]]
  }
  return { updates: updates.map(base64), authors, state: base64(Y.encodeStateAsUpdate(docs[0])), ...snapshot(docs[0], object(kinds.map(kind => [kind, kind]))) }
}

// ---------------------------------------------------------------------------------------------- operations

const operations = {
  apply: ({ updates, roots, gc }) => {
    const doc = new Y.Doc({ gc })
    let error = null
    try {
      for (const update of updates) Y.applyUpdate(doc, bytes(update))
      return { error, ...snapshot(doc, roots) }
    } catch (thrown) {
      error = `${thrown}`
    }
    return { error, content: {}, state_vector: {}, pending: false }
  },
  encode: ({ updates, sv, gc }) => base64(Y.encodeStateAsUpdate(load(updates, { gc }), sv === null ? undefined : bytes(sv))),
  merge: ({ updates }) => base64(Y.mergeUpdates(updates.map(bytes))),
  json: ({ texts }) => texts.map(text => { try { return { v: tagged(JSON.parse(text)) } } catch { return null } }),
  generate
}

for await (const line of readline.createInterface({ input: process.stdin, terminal: false })) {
  const { id, op, ...request } = JSON.parse(line)
  let answer
  try {
    answer = { id, ok: operations[op](request) }
  } catch (thrown) {
    answer = { id, failed: thrown?.stack ?? `${thrown}` }
  }
  process.stdout.write(JSON.stringify(answer) + '\n')
}
