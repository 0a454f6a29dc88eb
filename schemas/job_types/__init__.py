"""Job types: their signatures, and how their payloads and results are checked, written as JSON and read again."""
