"""Tests of the tools, the documentation and the README."""
