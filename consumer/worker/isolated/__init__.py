"""Runs handlers in child processes that can be killed: ``@job(isolate=True)`` and jobs that may have killed a worker."""
