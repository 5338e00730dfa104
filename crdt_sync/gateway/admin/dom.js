// Elements from names and values. Strings become text, never markup: what is shown here was written by strangers.

const make = (element, properties, children) => {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value)
    else if (name === 'value') element.value = value
    else element.setAttribute(name, value === true ? '' : value)
  }
  element.append(...children.flat(Infinity).filter(one => one !== null && one !== undefined && one !== false))
  return element
}

export const h = (name, properties = {}, ...children) => make(document.createElement(name), properties, children)

export const svg = (name, properties = {}, ...children) =>
  make(document.createElementNS('http://www.w3.org/2000/svg', name), properties, children)

// A table that becomes a list of cards where it is narrow. Columns are {title}, `number` if numbers are in them, `unseen` if the
// title is only for those who can't see the table.
export const table = (caption, columns, body) => h('table', { role: 'table' },
  h('caption', { class: 'unseen' }, caption),
  h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, columns.map(({ title, number, unseen }) =>
    h('th', { role: 'columnheader', scope: 'col', class: number ? 'number' : null }, unseen ? h('span', { class: 'unseen' }, title) : title)))),
  body)

// One row; `cells` are in the order of the columns, and null where there is nothing to say.
export const row = (columns, cells) => h('tr', { role: 'row' }, cells.map((cell, i) =>
  h('td', {
    role: 'cell',
    'data-title': columns[i].unseen ? null : columns[i].title,
    class: [columns[i].number && 'number', cell === null && 'none'].filter(Boolean).join(' ') || null
  }, cell ?? '')))

// What two equal things have in common; null, which is equal to nothing, of what is nested too deeply to tell.
const likeness = item => {
  try {
    return JSON.stringify(item)
  } catch {
    return null
  }
}

// Keeps an element's children in step with items: what is the same stays as it is, and what has the focus keeps it.
export const keyed = (parent, key, render) => {
  let known = new Map()
  return items => {
    const next = new Map()
    for (const item of items) {
      const id = key(item)
      const text = likeness(item)
      const old = known.get(id)
      next.set(id, text !== null && old?.text === text ? old : { text, element: render(item), before: old?.element })
    }
    const focused = document.activeElement
    const inside = parent.contains(focused)
    const elements = [...next.values()].map(({ element }) => element)
    if (elements.length !== parent.children.length || elements.some((one, i) => one !== parent.children[i])) {
      parent.replaceChildren(...elements)
    }
    if (inside && document.activeElement !== focused) {
      const entry = [...next.values()].find(({ element, before }) => element.contains(focused) || before?.contains(focused))
      const now = entry?.element.contains(focused) ? focused : entry?.element.querySelector(`[data-act="${focused.dataset.act}"]`)
      now?.focus({ preventScroll: true })
    }
    for (const entry of next.values()) delete entry.before
    known = next
  }
}

// What is read out, and shown for some seconds.
export const say = text => {
  const line = h('p', {}, text)
  document.getElementById('said').append(line)
  setTimeout(() => line.remove(), 6000)
}
