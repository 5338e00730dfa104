// How to edit and read a document with Yjs 13 and with Yjs 14, in one vocabulary.
//
// A document has four roots: text, array, map and xml; others are called by their kind and name, as `array:itinerary`.
// An edit is {on: root, path: [key or index, ...], do, args};
// positions are UTF-16 units. Values may hold types: {$map: {...}}, {$array: [...]}, {$text: 'abc'},
// {$element: name, attributes: {...}, children: [...]}, {$xmlText: 'abc'}.
//
// Yjs 14 has one type, `Y.Type`: a sequence with attributes. It reads every type of Yjs 13 and writes back the same
// bytes, but the types that it creates are XML elements (with a name) or fragments (without) to Yjs 13, and what it
// embeds is not an embed to Yjs 13. So its dialect refuses to create maps, arrays, texts and embeds.
import * as Y13 from 'yjs'
import * as Y14 from '@y/y'

const object = entries => Object.fromEntries(entries)
const mapped = (value, change) => object(Object.entries(value).map(([key, member]) => [key, change(member)]))
const plain = value => value !== null && typeof value === 'object' && !Array.isArray(value) && !(value instanceof Uint8Array)

// `<p class="a">` the way Yjs 13 writes it.
const tag = (name, attributes, children) => {
  const keys = Object.keys(attributes).sort()
  const written = keys.map(key => ` ${key}="${attributes[key]}"`).join('')
  return `<${name.toLowerCase()}${written}>${children}</${name.toLowerCase()}>`
}

const v13 = {
  Y: Y13,
  roots: doc => ({
    text: doc.getText('text'), array: doc.getArray('array'), map: doc.getMap('map'), xml: doc.getXmlFragment('xml')
  }),
  root: (doc, kind, name) => doc[{ text: 'getText', array: 'getArray', map: 'getMap', xml: 'getXmlFragment' }[kind]](name),

  build (value) {
    if (!plain(value)) return value
    if ('$map' in value) return new Y13.Map(Object.entries(mapped(value.$map, v13.build)))
    if ('$array' in value) return Y13.Array.from(value.$array.map(v13.build))
    if ('$text' in value) return new Y13.Text(value.$text)
    if ('$xmlText' in value) return new Y13.XmlText(value.$xmlText)
    if ('$element' in value) {
      const element = new Y13.XmlElement(value.$element)
      for (const [key, member] of Object.entries(value.attributes ?? {})) element.setAttribute(key, member)
      element.insert(0, (value.children ?? []).map(v13.build))
      return element
    }
    return value
  },

  edits: {
    insert: (type, index, content, format) => typeof content === 'string'
      ? type.insert(index, content, format)
      : type.insert(index, content.map(v13.build)),
    delete: (type, index, length) => type.delete(index, length),
    format: (type, index, length, attributes) => type.format(index, length, attributes),
    embed: (type, index, content, format) => type.insertEmbed(index, content, format),
    set: (type, key, value) => type instanceof Y13.Map ? type.set(key, v13.build(value)) : type.setAttribute(key, value),
    unset: (type, key) => type instanceof Y13.Map ? type.delete(key) : type.removeAttribute(key)
  },
  step: (type, key) => type.get(key),

  read: {
    text: type => type.toString(),
    delta: type => type.toDelta(),
    array: type => type.toJSON(),
    map: type => type.toJSON(),
    xml: type => type.toString()
  }
}

// Which type of Yjs 13 a type of Yjs 14 came from. `_legacyTypeRef` is private: @y/y 14.0.0-rc.7.
const [ARRAY, MAP, TEXT, , , , XML_TEXT] = [0, 1, 2, 3, 4, 5, 6]

const v14Json = value => {
  if (!(value instanceof Y14.Type)) return value
  if (value._legacyTypeRef === MAP) return v14.read.map(value)
  if (value._legacyTypeRef === ARRAY) return v14.read.array(value)
  if (value._legacyTypeRef === TEXT) return v14.read.text(value)
  return v14Xml(value)
}

const v14Xml = value => {
  if (!(value instanceof Y14.Type)) return String(value)
  const children = value._legacyTypeRef === XML_TEXT
    ? v14.read.delta(value).map(({ insert, attributes = {} }) => Object.keys(attributes).sort().reverse()
      .reduce((inner, name) => tag(name, attributes[name] ?? {}, inner), insert)).join('')
    : value.toArray().map(v14Xml).join('')
  return value.name === null ? children : tag(value.name, object(value.attrEntries()), children)
}

const v14 = {
  Y: Y14,
  roots: doc => object(['text', 'array', 'map', 'xml'].map(name => [name, doc.get(name)])),
  root: (doc, kind, name) => doc.get(name),

  build (value) {
    if (!plain(value)) return value
    if ('$xmlText' in value) return value.$xmlText
    if ('$element' in value) {
      const element = new Y14.Type(value.$element)
      for (const [key, member] of Object.entries(value.attributes ?? {})) element.setAttr(key, member)
      for (const child of value.children ?? []) element.push(typeof v14.build(child) === 'string' ? v14.build(child) : [v14.build(child)])
      return element
    }
    if (Object.keys(value).some(key => key.startsWith('$'))) throw new Error(`Yjs 14 can't create ${Object.keys(value)[0]} for Yjs 13`)
    return value
  },

  edits: {
    insert: (type, index, content, format) => type.insert(index, typeof content === 'string' ? content : content.map(v14.build), format),
    delete: (type, index, length) => type.delete(index, length),
    format: (type, index, length, attributes) => type.format(index, length, attributes),
    embed: () => { throw new Error("Yjs 14 can't create an embed for Yjs 13") },
    set: (type, key, value) => type.setAttr(key, v14.build(value)),
    unset: (type, key) => type.deleteAttr(key)
  },
  step: (type, key) => typeof key === 'number' ? type.get(key) : type.getAttr(key),

  read: {
    text: type => v14.read.delta(type).map(({ insert }) => typeof insert === 'string' ? insert : '').join(''),
    delta: type => type.toDelta().toJSON().children?.flatMap(({ insert, format }) =>
      (typeof insert === 'string' ? [insert] : insert).map(each => format ? { insert: each, attributes: format } : { insert: each })
    ) ?? [],
    array: type => type.toArray().map(v14Json),
    map: type => object([...type.attrEntries()].map(([key, value]) => [key, v14Json(value)])),
    xml: type => type.toArray().map(v14Xml).join('')
  }
}

const root = (dialect, doc, name) => name.includes(':') ? dialect.root(doc, ...name.split(':')) : dialect.roots(doc)[name]

const at = (dialect, doc, { on, path = [] }) => path.reduce((type, key) => dialect.step(type, key), root(dialect, doc, on))

/** Make all edits in one transaction. */
export const edit = (dialect, doc, edits) => doc.transact(() => {
  for (const each of edits) {
    if (!(each.do in dialect.edits)) throw new Error(`no edit is called ${each.do}`)
    dialect.edits[each.do](at(dialect, doc, each), ...each.args)
  }
})

/** The content of some of: text, delta, array, map, xml; `delta:notes` is the delta of the text `notes`. */
export const content = (dialect, doc, parts) => object(parts.map(part => {
  const [form] = part.split(':')
  return [part, dialect.read[form](root(dialect, doc, part.replace(/^delta/, 'text')))]
}))

/** Replace text as one trace transaction says, in one Yjs transaction; `clamp` fits positions to a text that differs. */
export const patch = (dialect, doc, patches, clamp) => doc.transact(() => {
  const { text } = dialect.roots(doc)
  for (const [position, deleted, inserted] of patches) {
    const index = clamp ? Math.min(position, text.length) : position
    const length = clamp ? Math.min(deleted, text.length - index) : deleted
    if (length > 0) text.delete(index, length)
    if (inserted !== '') text.insert(index, inserted)
  }
})

export const dialects = { v13, v14 }
