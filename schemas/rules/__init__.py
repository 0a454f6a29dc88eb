"""Rules: jobs that are never run and are in force until they are cancelled: pauses, changed limits, schedules."""
