"""A small broker in memory, behind the connections that `jobtape.broker` uses. Nothing above the connection differs."""
