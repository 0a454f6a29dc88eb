"""Reads history again: rebuilds the view, replays events to a queue, runs past payloads and compares the results."""
