"""Celery's x + y."""
