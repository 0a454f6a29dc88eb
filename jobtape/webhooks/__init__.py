"""Webhooks: secrets and signatures, the addresses that are allowed, and the requests."""
