"""Tests of the examples that are folders: the commands of each README are run, and what only a fault shows."""
