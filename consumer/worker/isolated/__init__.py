"""Runs handlers in child processes that can be killed.

For ``@job(isolate=True)``, and for jobs that may have killed a worker before.
"""
