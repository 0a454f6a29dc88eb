"""Delivers events to Python programs that call ``jobtape.subscribe``: live, or from the committed history."""
