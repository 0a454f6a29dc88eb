"""The REST API for the command line: returns answers as JSON, for tables and for ``--json``.

It uses the connection of ``jobtape.Client``. But a person is waiting, so it reports at once when no API can be reached.
"""

import math
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import httpx

from jobtape.client import encoding as wire
from jobtape.client.answers import json_object
from jobtape.client.connection import ApiConnection, RequestPolicy
from jobtape.client.encoding import Query
from jobtape.client.errors import ApiError, NoAnswer
from jobtape.client.portal import Portal

if TYPE_CHECKING:
    from jobtape.client.stream import Since
    from jobtape.schemas.delivered_event import DeliveredEvent

HINT: Final = "--url / JOBTAPE_URL"
TIMEOUT: Final = 30.0
AT_ONCE: Final = RequestPolicy(timeout=TIMEOUT, patience=30.0, after_cuts=False, hint=HINT)
ONCE_THERE: Final = RequestPolicy(timeout=TIMEOUT, patience=0.0, after_cuts=True, hint=HINT)
"""For long reads: the API must be reachable at the beginning and may be unavailable later."""
JSON: Final = {"Content-Type": "application/json"}


class Api:
    """Blocking access to the REST API: ``with Api("http://127.0.0.1:8000") as api``. Every method raises ApiError.

    The key comes from JOBTAPE_API_KEY, because an option would be visible in ``ps``.
    """

    def __init__(self, url: str, policy: RequestPolicy = AT_ONCE) -> None:
        self._connection = ApiConnection(url, policy=policy)
        self._portal = Portal()
        self.url = self._connection.url

    def __enter__(self) -> "Api":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._portal.call(self._connection.close)
        self._portal.close()

    def submit(self, body: Mapping[str, Any], idempotency_key: str | None = None) -> dict[str, Any]:
        """Submit a job and return it, or the job that was accepted before under the same key."""
        headers, keyed = JSON, idempotency_key is not None
        if idempotency_key is not None:
            try:
                headers = JSON | {"Idempotency-Key": wire.key_header(idempotency_key)}
            except ValueError as error:
                raise ApiError(str(error)) from None
        try:
            return self._object("POST", "/jobs", twice=keyed, content=wire.json_of(body), headers=headers)
        except NoAnswer as error:
            how = "submit it again under the same key" if keyed else "see `jobtape list`"
            raise ApiError(f"{error}; it is not known whether the job was accepted: {how}") from None

    def redrive(self, job_id: str) -> dict[str, Any]:
        """Redrive a job and return it in its new run."""
        return self._object("POST", f"{_path(job_id)}/redrive")

    def redrives(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Redrive a page of jobs and return the result. When this raises, nothing was redriven."""
        return self._object("POST", "/redrives", content=wire.json_of(body), headers=JSON)

    def dead(self, limit: int) -> dict[str, Any]:
        """Return a page of messages that are not jobs."""
        return self._object("GET", "/dead", params={"limit": limit})

    def dead_message(self, number: int) -> dict[str, Any]:
        """Return a message that is not a job, with its body."""
        return self._object("GET", f"/dead/{number}")

    def job(self, job_id: str) -> dict[str, Any]:
        """Return the current state of a job."""
        return self._object("GET", _path(job_id))

    def changed(self, job_id: str, cursor: object, seconds: float) -> tuple[dict[str, Any] | None, bool]:
        """Wait up to ``seconds`` until the job has changed since ``cursor``, the value of its field ``cursor``.

        Returns the job, or None when nothing changed, and whether the API waited before it answered.
        """
        wait = math.ceil(seconds)
        headers = {} if cursor is None else {"If-None-Match": f'"{cursor}"', "Prefer": f"wait={wait}"}
        answer = self._ask("GET", _path(job_id), headers=headers, timeout=wait + TIMEOUT)
        same = answer.status_code == httpx.codes.NOT_MODIFIED
        return None if same else json_object(answer, HINT), "preference-applied" in answer.headers

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Request that a job is cancelled, and return it as it was at the request."""
        return self._object("POST", f"{_path(job_id)}/cancel")

    def jobs(self, query: Query) -> dict[str, Any]:
        """Return a page of jobs: ``items`` and ``next``."""
        return self._object("GET", "/jobs", params=list(query))

    def job_then(self, job_id: str, as_of: str) -> tuple[dict[str, Any], str]:
        """Return the job as it was at ``as_of``, and the cursor of that time."""
        return _then(self._ask("GET", _path(job_id), params={"as_of": as_of}))

    def jobs_then(self, query: Query, as_of: str) -> tuple[dict[str, Any], str]:
        """Return a page of jobs as they were at ``as_of``, and the cursor of that time. Any page can be short."""
        return _then(self._ask("GET", "/jobs", params=[*query, ("as_of", as_of)]))

    def events(self, job_id: str) -> list[dict[str, Any]]:
        """Return all events of a job, in the tape's order."""
        found: list[dict[str, Any]] = []
        after: int | None = 0
        while after is not None:
            page = self._object("GET", f"{_path(job_id)}/events", params={"after": after, "limit": 1000})
            found += page["items"]
            after = page["next"]
        return found

    def live(self, query: Query, since: "Since") -> "Iterator[DeliveredEvent]":
        """Yield events as they happen. Also raises HistoryGone and UnreadableEvent."""
        from jobtape.client.stream import OUTAGE, EventReader  # noqa: PLC0415

        reader = EventReader(self._connection, query, since, outage=OUTAGE)
        with self._portal.iterate(reader.events()) as received:
            yield from received

    def _object(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        return json_object(self._ask(method, path, **more), HINT)

    def _ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        return self._portal.call(self._connection.ask, method, path, **more)


def _then(answer: httpx.Response) -> tuple[dict[str, Any], str]:
    return json_object(answer, HINT), answer.headers.get("jobtape-as-of", "")


def _path(job_id: str) -> str:
    try:
        return wire.job_path(job_id)
    except ValueError as error:
        raise ApiError(f"{error}: `jobtape list` shows the ids") from None
