"""Runs jobs: takes deliveries from the work queues, executes the handlers, publishes the outcome, then acknowledges.

Never imports the view: a worker needs the broker and nothing else.
"""
