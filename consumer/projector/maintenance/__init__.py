"""Services of the active projector: send effects, rescue lost work, prune old jobs."""
