"""The pure core: what a job is, what an event is, how events fold into a status, and where they travel.

Nothing here does I/O, reads a clock or the environment; it needs the standard library and pydantic only.
"""
