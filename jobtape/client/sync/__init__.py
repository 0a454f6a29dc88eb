"""The client for code without ``await``: runs the asynchronous client in a thread."""
