"""Jobtape."""
