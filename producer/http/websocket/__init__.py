"""The WebSocket ``/ws``: who may connect, what may be requested, and one connection's tasks."""
