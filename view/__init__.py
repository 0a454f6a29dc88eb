"""What is known of all jobs, in SQLite or PostgreSQL: written by the projector alone, read by the API.

``store.Store`` is the way in. Everything here blocks: call it from a thread.
"""
