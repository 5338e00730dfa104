// Light or dark: as the system has it, unless somebody chose.
import { Store } from './store'

export type Theme = 'system' | 'light' | 'dark'
const PLACE = 'trip-planner:theme'

const saved = localStorage.getItem(PLACE)
export const theme = new Store<{ value: Theme }>({ value: saved === 'light' || saved === 'dark' ? saved : 'system' })

const apply = () => {
  const { value } = theme.value
  if (value === 'system') document.documentElement.removeAttribute('data-theme')
  else document.documentElement.dataset['theme'] = value
}
apply()
theme.watch(() => {
  localStorage.setItem(PLACE, theme.value.value)
  apply()
})
