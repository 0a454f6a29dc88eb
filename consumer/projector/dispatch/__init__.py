"""What the active projector starts: work that is due or whose gates are open, and the jobs of schedules and flows."""
