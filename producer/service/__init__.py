"""Submits jobs and reads them, without HTTP: validation, publishing, idempotency keys, barriers, cancel, redrive."""
