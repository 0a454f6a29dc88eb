"""Runs handlers in child processes that can be killed: those with ``isolate=True`` and jobs that may kill a worker."""
