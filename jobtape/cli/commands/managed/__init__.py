"""The commands for what is kept in an installation: rules, schedules, API keys and webhooks."""
