"""Fix a handler, shadow-run it over last week, redrive what was wrong."""
