"""Reads of single jobs by an event loop itself, since a change of threads costs more than such a read does."""
