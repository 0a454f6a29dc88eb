"""What the active projector repairs and removes: lost work, dead letters, missing queues, old jobs."""
