"""The events of one job as a stream, which may end when the job has."""

from jobtape.producer.http.stream_parameters import JobEventsQuery
from jobtape.producer.live.event_stream import Enough, EventStream, never
from jobtape.producer.live.follower import After
from jobtape.producer.live.outcome_wait import AWAITED
from jobtape.producer.producer import Producer
from jobtape.producer.service.errors import TooBusy
from jobtape.schemas.errors import ViewUnavailable
from jobtape.schemas.job import ENDINGS, FINAL
from jobtape.schemas.selection import Selection


def job_stream(producer: Producer, job_id: str, query: JobEventsQuery, after: After) -> EventStream:
    """Return the response. A stream that ends with the job delivers its final event also where it was not asked for."""
    wanted = events = frozenset(query.event)
    if query.until is not None and events:
        events |= AWAITED
    return EventStream(
        producer.listeners,
        Selection(job=job_id, events=events),
        after,
        keep_alive=producer.limits.keep_alive,
        stall=producer.limits.stall,
        enough=never if query.until is None else _has_ended(producer, job_id),
        hidden=events - wanted - ENDINGS,
    )


def _has_ended(producer: Producer, job_id: str) -> Enough:
    async def enough(name: str | None, position: int) -> bool:
        if name is not None and name not in AWAITED:
            return False
        try:
            job = await producer.look(job_id)
        except (ViewUnavailable, TooBusy):
            return False  # it is asked again with the next keep-alive
        # An ending that a redrive followed is not the end.
        return job is not None and job.state in FINAL and job.cursor <= position

    return enough
