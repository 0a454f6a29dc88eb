"""The routes of the REST API, one module for each resource, in the groups jobs, events, rules and operations."""
