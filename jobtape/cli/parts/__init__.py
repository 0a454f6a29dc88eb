"""Runs one part in this process: the API, a worker or a projector, with its signals, health and logs."""
