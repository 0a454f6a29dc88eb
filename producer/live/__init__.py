"""Delivers committed events to clients that are connected now: one tail of the history for all streams and waiting
requests.
"""
