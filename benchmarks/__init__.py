"""Measurements: side by side, bounded in count and time, against this machine only."""
