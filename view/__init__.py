"""The state of all jobs, in SQLite or PostgreSQL. The projector writes it, the API reads it.

``store.Store`` is the interface. All its calls block: an event loop makes them in ``threads.DatabaseThreads``.
"""
