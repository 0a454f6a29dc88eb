"""Folds the tape into the view exactly once, and runs the services of the active projector."""
