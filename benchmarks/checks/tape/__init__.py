"""Rebuild, replay, shadow run, export and import of one installation: ``python -m benchmarks.checks.tape``."""
