"""A y-websocket sync server for Yjs documents that keeps every confirmed edit."""
