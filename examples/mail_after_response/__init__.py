"""A mail after the response."""
