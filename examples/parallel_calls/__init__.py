"""Parallel calls to other services."""
