"""Two services that talk through events."""
