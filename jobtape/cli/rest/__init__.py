"""Subcommands that use a running Jobtape over its REST API."""
