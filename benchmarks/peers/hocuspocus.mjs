// Hocuspocus as its README starts it, in memory. `quiet` leaves out its start screen.
import { Server } from '@hocuspocus/server'

await new Server({ address: process.env.HOST, port: Number(process.env.PORT), quiet: true }).listen()
