"""Processes that end with the one that started them, folder locks and free ports. Standard library only."""
