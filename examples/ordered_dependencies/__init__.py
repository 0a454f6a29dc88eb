"""Tasks from dependencies, in order."""
