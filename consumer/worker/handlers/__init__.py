"""Runs user code in threads and on an event loop of its own, apart from the loop that has the connection."""
