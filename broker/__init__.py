"""AMQP I/O: keep a connection, declare what ``schemas.topology`` describes, publish with confirms, read the stream.

Every process has separate connections for publishing and consuming: a memory or disk alarm blocks a publishing
connection completely, and acknowledgements must still get through.
"""
