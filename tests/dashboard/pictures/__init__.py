"""Pictures of the dashboard: those of the documentation, and the pages in all situations."""
