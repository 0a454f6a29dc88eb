"""What operators look at: health, metrics, workers, statistics, dead letters, the dashboard."""
