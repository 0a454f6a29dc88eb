"""AMQP I/O: keep a connection, declare what ``schemas.topology`` describes, publish with confirm, read the stream.

Every part keeps separate connections for publishing and consuming: a memory or disk alarm blocks all of a publishing
connection, and acknowledgements must still flow.
"""
