"""Tests of the examples: the handlers called directly, and the application over HTTP."""
