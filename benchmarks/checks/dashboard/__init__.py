"""What the dashboard shows and costs: its numbers, pictures of its pages, first paint, open pages, the statistics."""
