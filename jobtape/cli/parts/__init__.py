"""Runs one part in this process: API, worker or projector, with its signals, health checks and logs."""
