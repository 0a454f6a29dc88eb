"""Start a task and get its result."""
