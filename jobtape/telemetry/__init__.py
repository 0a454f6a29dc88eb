"""Traces and metrics of all rooms. OpenTelemetry is imported only where it is wanted: see ``setup``."""
