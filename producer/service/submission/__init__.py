"""From a submission to its event: checks, idempotency keys, one confirmed publish."""
