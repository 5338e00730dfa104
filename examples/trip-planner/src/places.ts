// Where an item is: by day, and in it by rank. To move one, it gets the middle of its neighbours' ranks. Pure.

interface Placed { day: number; rank: number | null }

/** By day, in each day by rank; those without one last. */
export const inOrder = <T extends Placed>(items: T[]): T[] =>
  items.sort((a, b) => a.day - b.day || (a.rank ?? Infinity) - (b.rank ?? Infinity) || 0)

export interface Place {
  rank: number
  /** What ranks the others of the day get first, if there was no number between the two neighbours. */
  ranks?: number[]
}

/** The rank of what is put before index `index` of others that have these ranks. */
export function placeAt(ranks: (number | null)[], index: number): Place {
  const before = index > 0 ? ranks[index - 1] : undefined
  const after = ranks[index]
  if (index === 0 && after === undefined) return { rank: 1 }
  if (index === 0 && typeof after === 'number') return { rank: after - 1 }
  if (after === undefined && typeof before === 'number') return { rank: before + 1 }
  if (typeof before === 'number' && typeof after === 'number') {
    const middle = (before + after) / 2
    if (before < middle && middle < after) return { rank: middle }
  }
  const fresh = ranks.map((_, at) => at < index ? at + 1 : at + 2)
  return { rank: index + 1, ranks: fresh }
}
