"""The pure core: what a job is, what an event is, how events fold into a status, and where they travel.

Nothing here does I/O or reads a clock or the environment. It needs only the standard library and pydantic.
"""
