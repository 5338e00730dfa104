"""The edge: HTTP and WebSocket in, rooms inside. The only home of starlette."""
