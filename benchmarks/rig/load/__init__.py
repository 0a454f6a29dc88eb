"""Requests, jobs and tapes by the thousand."""
