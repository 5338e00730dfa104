// Hocuspocus as its README starts it, in memory. `quiet` leaves out its start screen.
//
// With SQLITE_FILE it keeps documents as its SQLite extension does, when its debounce says so, and tells the clients how long the text is
// that is on disk. With REDIS_URL it shares them with other nodes.
import { DatabaseSync } from 'node:sqlite'
import { Redis } from '@hocuspocus/extension-redis'
import { Server } from '@hocuspocus/server'
import * as Y from 'yjs'

const keeping = file => {
  const database = new DatabaseSync(file)
  database.exec('CREATE TABLE IF NOT EXISTS documents (name TEXT PRIMARY KEY, data BLOB NOT NULL)')
  const read = database.prepare('SELECT data FROM documents WHERE name = ?')
  const write = database.prepare(
    'INSERT INTO documents (name, data) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET data = excluded.data'
  )
  return {
    async onLoadDocument ({ documentName, document }) {
      const row = read.get(documentName)
      if (row) Y.applyUpdate(document, row.data)
    },
    async onStoreDocument ({ documentName, document }) {
      const state = Y.encodeStateAsUpdate(document)
      const length = document.getText('t').length
      write.run(documentName, state)
      document.broadcastStateless(`stored ${length}`)
    }
  }
}

const { HOST, PORT, REDIS_URL, SQLITE_FILE } = process.env
const redis = REDIS_URL && new URL(REDIS_URL)
await new Server({
  address: HOST,
  port: Number(PORT),
  quiet: true,
  extensions: redis ? [new Redis({ host: redis.hostname, port: Number(redis.port) })] : [],
  ...(SQLITE_FILE ? keeping(SQLITE_FILE) : {})
}).listen()
