"""Reads of jobs and of what belongs to them: lists, searches, the past, flows and sums."""
