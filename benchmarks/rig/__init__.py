"""Brokers, installations, job types and clients for measurements."""
