"""Outbox and inbox in the user's own database: submit in a transaction, and keep an effect that happens once.

Theory of operation. ``submit_in`` inserts a row into the table ``jobtape_outbox`` in the user's transaction. So the row
exists if and only if that transaction was committed. A **forwarder** takes rows, publishes each as a job, and deletes
it after the confirm. The id of the job is in the row. So the event of a row that is published again has the same id,
and the fold accepts it once.

A row is *taken* for some time, by the database's clock. No transaction is open while its job is published. When a
forwarder dies, another one takes its rows when that time is over. It cannot know which of them were published. So it
publishes the event to the tape alone, as one of a job that is due at once. If the event is there already, the fold
rejects the second one, and no work is placed again. If not, the projector places the work.

There is no watermark: a transaction that is committed late is found like any other.
"""
