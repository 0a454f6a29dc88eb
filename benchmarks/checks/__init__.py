"""Programs that break an installation, or load it in an unusual way, and check what must hold. Run them by hand."""
