"""The database itself: connecting to SQLite or PostgreSQL, migrations, bulk statements and the clock. Knows no jobs."""
