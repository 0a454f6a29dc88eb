"""Tables and plots of ``docs/benchmarks.md``."""
