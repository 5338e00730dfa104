// Changes as the server writes them for people (docs/reference/changes.md, Text), as elements: a block for each path.
import { h } from './dom.js'
import { lines } from './text.js'

// A path as in `itinerary[2]["two words"].title`. All other lines begin with one of the marks and a space.
const PATH = /^(?:\.?[\p{L}\p{N}_]+|\[\d+\]|\["(?:[^"\\]|\\.)*"\])+/u
const MARKS = { '- ': 'removed', '+ ': 'added', '~ ': 'formatted', '@ ': 'place', '  ': 'kept' }
const WORDS = { removed: 'removed: ', added: 'added: ', formatted: 'formatted: ', place: 'at position ' }
const BLOCKS = 300

// A list of {path, authors, lines: [{kind, text}]}.
export const parse = text => {
  const blocks = []
  for (const line of text.split('\n')) {
    const kind = MARKS[line.slice(0, 2)]
    if (kind !== undefined && blocks.length > 0) blocks.at(-1).lines.push({ kind, text: line.slice(2) })
    else if (line !== '') {
      const path = PATH.exec(line)?.[0] ?? line
      blocks.push({ path, authors: line.slice(path.length).replace(/^ \((.*)\)$/, '$1'), lines: [] })
    }
  }
  return blocks
}

const block = ({ path, authors, lines: told }) => h('section', { class: 'change' },
  h('h3', {}, h('code', {}, lines(path)), authors === '' ? null : h('small', {}, ' by ', h('bdi', {}, lines(authors)))),
  h('div', { class: 'diff', role: 'list' }, told.map(({ kind, text }) => h('div', { class: kind, role: 'listitem' },
    kind in WORDS ? h('span', { class: 'unseen' }, WORDS[kind]) : null,
    // Nothing in an empty line would show that it is one.
    h('bdi', {}, lines(text) || ' ')))))

export const changesShown = text => {
  const blocks = parse(text)
  return h('div', { class: 'changes' }, blocks.slice(0, BLOCKS).map(block),
    blocks.length > BLOCKS ? h('p', { class: 'hint' }, `And ${blocks.length - BLOCKS} more.`) : null)
}
