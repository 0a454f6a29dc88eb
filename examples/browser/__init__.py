"""Jobs in the browser."""
