"""The REST API as the command line uses it: answers as they come, for people and for ``--json``.

Like ``jobtape.Client``, on the same connection; but a person waits, so an API that is not there is reported at once.
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
"""For what goes on for long: it must be there in the beginning, and may be away later."""
JSON: Final = {"Content-Type": "application/json"}


class Api:
    """``with Api("http://127.0.0.1:8000") as api``. The key is in JOBTAPE_API_KEY: an option would show in ``ps``.

    Every method raises ApiError.
    """

    def __init__(self, url: str, policy: RequestPolicy = AT_ONCE) -> None:
        self._connection = ApiConnection(url, policy=policy)
        self._portal = Portal()
        self.url = self._connection.url

    def __enter__(self) -> "Api":
        """Nothing is sent yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self._portal.call(self._connection.close)
        self._portal.close()

    def submit(self, order: Mapping[str, Any], idempotency_key: str | None = None) -> dict[str, Any]:
        """The job that was accepted, now or before under the same key."""
        headers, keyed = JSON, idempotency_key is not None
        if idempotency_key is not None:
            try:
                headers = JSON | {"Idempotency-Key": wire.key_header(idempotency_key)}
            except ValueError as error:
                raise ApiError(str(error)) from None
        try:
            return self._object("POST", "/jobs", twice=keyed, content=wire.json_of(order), headers=headers)
        except NoAnswer as error:
            how = "submit it again under the same key" if keyed else "see `jobtape list`"
            raise ApiError(f"{error}; whether the job was accepted is not known: {how}") from None

    def redrive(self, job_id: str) -> dict[str, Any]:
        """The job in its next run."""
        return self._object("POST", f"{_path(job_id)}/redrive")

    def redrives(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """What became of a page of jobs. When this raises, nothing was redriven."""
        return self._object("POST", "/redrives", content=wire.json_of(body), headers=JSON)

    def dead(self, limit: int) -> dict[str, Any]:
        """A page of messages that are no job."""
        return self._object("GET", "/dead", params={"limit": limit})

    def dead_message(self, number: int) -> dict[str, Any]:
        """One of them, with its body."""
        return self._object("GET", f"/dead/{number}")

    def job(self, job_id: str) -> dict[str, Any]:
        """The job as it is now."""
        return self._object("GET", _path(job_id))

    def changed(self, job_id: str, cursor: object, seconds: float) -> tuple[dict[str, Any] | None, bool]:
        """The job, as soon as something has happened to it since ``cursor``, its own field of that name, or None when
        nothing has for so many seconds; and whether the API has waited for that.
        """
        whole = math.ceil(seconds)
        headers = {} if cursor is None else {"If-None-Match": f'"{cursor}"', "Prefer": f"wait={whole}"}
        answer = self._ask("GET", _path(job_id), headers=headers, timeout=whole + TIMEOUT)
        same = answer.status_code == httpx.codes.NOT_MODIFIED
        return None if same else json_object(answer, HINT), "preference-applied" in answer.headers

    def cancel(self, job_id: str) -> dict[str, Any]:
        """The job as it was when its end was asked for."""
        return self._object("POST", f"{_path(job_id)}/cancel")

    def jobs(self, query: Query) -> dict[str, Any]:
        """A page of jobs: ``items`` and ``next``."""
        return self._object("GET", "/jobs", params=list(query))

    def job_then(self, job_id: str, as_of: str) -> tuple[dict[str, Any], str]:
        """The job as it was, and the cursor that ``as_of`` stands for."""
        return _then(self._ask("GET", _path(job_id), params={"as_of": as_of}))

    def jobs_then(self, query: Query, as_of: str) -> tuple[dict[str, Any], str]:
        """A page of jobs as they were, which may be short although there is a next one; and the cursor."""
        return _then(self._ask("GET", "/jobs", params=[*query, ("as_of", as_of)]))

    def events(self, job_id: str) -> list[dict[str, Any]]:
        """All the events of a job, in the order of the tape."""
        found: list[dict[str, Any]] = []
        after: int | None = 0
        while after is not None:
            page = self._object("GET", f"{_path(job_id)}/events", params={"after": after, "limit": 1000})
            found += page["items"]
            after = page["next"]
        return found

    def live(self, query: Query, since: "Since") -> "Iterator[DeliveredEvent]":
        """What happens, as it happens. Also raises HistoryGone and UnreadableEvent."""
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
        raise ApiError(f"{error}: `jobtape list` shows them") from None
