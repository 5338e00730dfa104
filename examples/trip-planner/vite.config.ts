import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { relative } from 'node:path'
import { defineConfig, type Plugin } from 'vite'

const OTHERS = ['index.html', 'package-lock.json', 'public/service-worker.js', 'vite.config.ts']

/** Notes what the built files were made of, for `sha256sum --check dist/sources.sha256`: they are committed, so somebody may forget to build. */
const noteSources = (): Plugin => ({
  name: 'note-sources',
  generateBundle() {
    const modules = [...this.getModuleIds()].map(id => relative('.', id)).filter(path => /^(src|\.\.\/\.\.)\//.test(path))
    const lines = [...new Set([...modules, ...OTHERS])].sort().map(path => `${createHash('sha256').update(readFileSync(path)).digest('hex')}  ${path}\n`)
    this.emitFile({ type: 'asset', fileName: 'sources.sha256', source: lines.join('') })
  }
})

const SERVER = 'http://127.0.0.1:1234'

export default defineConfig({
  plugins: [noteSources()],
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  build: { target: 'es2022', license: { fileName: 'licenses.txt' }, modulePreload: { polyfill: false }, chunkSizeWarningLimit: 700 },
  // For `npm run dev`, beside `make demo`.
  server: { proxy: { '/session': SERVER, '/api': SERVER, '^/trip-': { target: SERVER, ws: true } } }
})
