"""Tests of what ``make bench`` writes."""
