"""The database: connections to SQLite or PostgreSQL, migrations, bulk statements, leases and the clock."""
