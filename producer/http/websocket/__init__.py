"""The WebSocket ``/ws``: the access check, the requests, and the tasks of a connection."""
