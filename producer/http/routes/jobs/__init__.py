"""Submit, read, cancel and redrive jobs and flows."""
