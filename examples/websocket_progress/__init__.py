"""Progress over a WebSocket, with reconnect."""
