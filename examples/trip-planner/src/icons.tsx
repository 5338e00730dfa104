// Line icons, 24 × 24. Each stands beside words, or in a button that has a label.
const PATHS = {
  attraction: 'M3 21h18M4 10h16M12 3 4 8v2h16V8zM6 10v8M10 10v8M14 10v8M18 10v8',
  restaurant: 'M4 3v7a3 3 0 0 0 6 0V3M7 3v18M20 15V3c-3 1-5 4-5 8v4zM20 15v6',
  hotel: 'M3 5v14M3 15h18M21 19v-5a4 4 0 0 0-4-4h-7v5M6.5 11.5h.01',
  transport: 'M7 3h10a2 2 0 0 1 2 2v9a3 3 0 0 1-3 3H8a3 3 0 0 1-3-3V5a2 2 0 0 1 2-2zM5 10h14M8.5 14h.01M15.5 14h.01M8 17l-2 4M16 17l2 4',
  free: 'M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v2M12 20v2M4.9 4.9l1.4 1.4M17.7 17.7l1.4 1.4M2 12h2M20 12h2M4.9 19.1l1.4-1.4M17.7 6.3l1.4-1.4',
  grip: 'M9 6h.01M9 12h.01M9 18h.01M15 6h.01M15 12h.01M15 18h.01',
  up: 'M12 19V5M6 11l6-6 6 6',
  down: 'M12 5v14M6 13l6 6 6-6',
  chevron: 'M6 9l6 6 6-6',
  back: 'M15 6l-6 6 6 6',
  plus: 'M12 5v14M5 12h14',
  close: 'M6 6l12 12M18 6 6 18',
  check: 'M5 12.5l4.5 4.5L19 7.5',
  dots: 'M6 12h.01M12 12h.01M18 12h.01',
  undo: 'M9 14 4 9l5-5M4 9h10a6 6 0 0 1 0 12h-3',
  redo: 'M15 14l5-5-5-5M20 9H10a6 6 0 0 0 0 12h3',
  history: 'M3 12a9 9 0 1 0 3-6.7L3 8M3 3v5h5M12 7v5l3.5 2',
  share: 'M10 14a4 4 0 0 0 6 .5l3-3a4 4 0 0 0-5.6-5.7L12 7.200M14 10a4 4 0 0 0-6-.5l-3 3a4 4 0 0 0 5.6 5.7l1.4-1.4',
  cloud: 'M7 18a4.5 4.5 0 0 1-.6-8.960A6 6 0 0 1 18 8.5 4.8 4.8 0 0 1 17.5 18z',
  cloudOff: 'M3 3l18 18M8 6.500A6 6 0 0 1 18 8.500a4.8 4.8 0 0 1 2.8 7.600M16.5 18H7a4.5 4.5 0 0 1-.6-8.96',
  spinner: 'M12 3a9 9 0 1 0 9 9',
  moon: 'M20 14.500A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.500z',
  comment: 'M4 5h16v11H9l-5 4z',
  trash: 'M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13M10 11v5M14 11v5',
  plan: 'M5 4h14v17H5zM8.5 9h7M8.5 13h7M8.5 17h4',
  notes: 'M4 20l1-4L16 5l3 3L8 19zM14 7l3 3',
  wallet: 'M4 7h15v13H4zM4 7l11-4v4M15 13.500h4'
} as const

export type IconName = keyof typeof PATHS

export const Icon = ({ name, size = 20 }: { name: IconName; size?: number }) => (
  <svg class={`icon icon-${name}`} width={size} height={size} viewBox="0 0 24 24" aria-hidden="true" focusable="false"><path d={PATHS[name]} /></svg>
)
