"""The committed events for the relay, streams, subscriptions and webhooks, and how far each of them has come."""
