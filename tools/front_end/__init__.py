"""What the dashboard's front end is made and checked with: its packages from npm, a linter and a type checker.

The packages that browsers load are committed in ``producer/dashboard/static/vendor``, so only these checks need Node.
"""
