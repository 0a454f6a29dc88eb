"""Filters: which jobs and events a list, a bulk action, a subscription or a replay takes."""
