"""Rules: pauses, changed limits and schedules."""
