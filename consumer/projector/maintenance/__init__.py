"""Services of the active projector: place work that is due, rescue lost work, prune old jobs."""
