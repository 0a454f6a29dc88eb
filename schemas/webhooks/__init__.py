"""Webhooks: the job that delivers an event to an endpoint over HTTP."""
