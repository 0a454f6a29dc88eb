"""Dependencies of the routes: the running producer, and checks of the path and the query.

All of them are coroutines, because FastAPI runs any other dependency in a thread.
"""

from collections import Counter
from collections.abc import Callable
from typing import Annotated, Final

from fastapi import Depends, Path, Request
from starlette.requests import HTTPConnection

from jobtape.producer.http.problems import Problem
from jobtape.producer.http.stream_parameters import is_last_event_id
from jobtape.producer.producer import Producer
from jobtape.schemas import ids

FindProducer = Callable[[], Producer]
REPEATABLE: Final = frozenset({"event", "failure", "label", "queue", "reason", "state", "type"})
"""Query parameters that may have several values."""


def running_producer(connection: HTTPConnection) -> Producer:
    """Return the producer that serves this request. Raises the problem 503 when none is running."""
    find: FindProducer = connection.app.state.find_producer
    producer = find()
    producer.listeners.notice_stop()
    return producer


async def _running_producer(request: Request) -> Producer:
    return running_producer(request)


async def no_query(request: Request) -> None:
    """Raise the problem 422 for any query parameter: for routes that have none."""
    if names := list(request.query_params):
        raise Problem("invalid-query", f"this path has no query parameter {names[0]!r}; see /openapi.json")


async def no_repeated_parameters(request: Request) -> None:
    """Raise the problem 422 for a repeated query parameter that has one value: FastAPI would only use the last one."""
    for name, number in Counter(name for name, _ in request.query_params.multi_items()).items():
        if number > 1 and name not in REPEATABLE and not is_last_event_id(name):
            detail = f"the query contains it {number} times: send it once"
            raise Problem("invalid-query", f"{name}: {detail}. See /openapi.json", errors=[(name, detail)])


async def canonical_job_id(
    job_id: Annotated[str, Path(description="The job's id.", examples=["0198c2a0-7b1e-7c3d-9f42-5a1d3b6c8e90"])],
) -> str:
    """Return the job id of the path in lower case. Raises the problem 422 when it is not a UUID."""
    if (canonical := ids.parse_job_id(job_id)) is None:
        raise Problem("invalid-job-id", "a job id is a UUID, as POST /jobs returns it")
    return canonical


RunningProducer = Annotated[Producer, Depends(_running_producer)]
JobId = Annotated[str, Depends(canonical_job_id)]
