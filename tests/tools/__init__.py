"""Tests of what stands around the project."""
