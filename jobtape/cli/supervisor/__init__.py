"""Runs several parts as child processes of one command: ``jobtape up``, and ``jobtape worker`` with processes."""
