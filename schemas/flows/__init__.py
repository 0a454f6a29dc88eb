"""Flows: graphs of jobs. A flow is a job itself, whose outcome follows from those of its nodes."""
