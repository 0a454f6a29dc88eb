"""Measurements, bounded in count and time. Compare figures from one machine and one run only."""
