"""The steps of ``benchmarks.tape_suite``."""
