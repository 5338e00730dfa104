// @y/websocket-server on the port PORT, as its own server.js starts it, which wants an old `ws`: `PORT=1234 node y-websocket-server.mjs`.
import http from 'node:http'
import { WebSocketServer } from 'ws'
import { setupWSConnection } from '@y/websocket-server/utils'

console.error = () => {} // it prints a trace for each message that it can't read

const server = http.createServer((_request, response) => response.end('okay'))
new WebSocketServer({ server }).on('connection', (socket, request) => setupWSConnection(socket, request))
server.listen(Number(process.env.PORT), '127.0.0.1')
