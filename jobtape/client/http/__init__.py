"""HTTP with the API: requests with retries, streams of events, answers."""
