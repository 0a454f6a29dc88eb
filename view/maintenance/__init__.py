"""What long tasks do with the folded tables: rebuild, compare, remove."""
