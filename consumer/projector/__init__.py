"""Folds the tape into the view, exactly once, and runs what only the active projector may do."""
