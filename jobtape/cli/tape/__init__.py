"""Subcommands that read or write the whole tape: rebuild, replay, shadow, export and import."""
