"""Submits many jobs at once and says what became of each."""
