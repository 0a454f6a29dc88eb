"""Runs flows: begins the jobs of their nodes and records how the flows end."""
