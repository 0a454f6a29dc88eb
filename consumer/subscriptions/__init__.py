"""Delivers events to Python programs that call ``jobtape.subscribe``: live from a queue, or from the committed
history.
"""
