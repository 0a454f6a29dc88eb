"""A long task with a status."""
