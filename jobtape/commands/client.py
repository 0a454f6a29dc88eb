"""The REST API as the command line uses it; every failure is one line that says what to do."""

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final

import httpx

from jobtape.commands.plain import one_line
from jobtape.schemas.errors import JobtapeError

TIMEOUT: Final = 30.0
PATIENCE: Final = 30.0
"""Seconds during which a server that answers 503 is asked again."""

Query = Sequence[tuple[str, str]]


class ApiError(JobtapeError):
    """The API refused, or did not answer as one; the text is one line."""


class Api:
    """``with Api("http://127.0.0.1:8000") as api``. The key is in JOBTAPE_API_KEY: an option would show in ``ps``."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise ApiError(f"{url} is no address of an API: give --url / JOBTAPE_URL as http://host:port")
        key = os.environ.get("JOBTAPE_API_KEY")
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        # A proxy of the environment is for the internet, not for this machine.
        local = httpx.URL(self.url).host in ("localhost", "127.0.0.1", "::1")
        self._http = httpx.Client(headers=headers, timeout=TIMEOUT, trust_env=not local)

    def __enter__(self) -> "Api":
        """Nothing is sent yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self._http.close()

    def submit(self, order: Mapping[str, Any], idempotency_key: str | None = None) -> dict[str, Any]:
        """The job that was accepted, now or before under the same key. Raises ApiError."""
        # Not httpx's own JSON: what it cannot write (NaN, lone surrogates) is for the API to refuse.
        body = json.dumps(order).encode()
        headers = {"Content-Type": "application/json"}
        if idempotency_key is None:
            return _object(self._ask("POST", "/jobs", content=body, headers=headers))
        if not (idempotency_key.isascii() and idempotency_key.isprintable()):
            raise ApiError("an idempotency key has visible ASCII characters only, without spaces")
        # As a structured field string (RFC 9651): whatever the key is, the header is well formed.
        quoted = idempotency_key.replace("\\", "\\\\").replace('"', '\\"')
        headers["Idempotency-Key"] = f'"{quoted}"'
        return _object(self._ask_patiently("POST", "/jobs", content=body, headers=headers))

    def redrive(self, job_id: str) -> dict[str, Any]:
        """The job in its next run. Raises ApiError."""
        return _object(self._ask_patiently("POST", f"/jobs/{_segment(job_id)}/redrive"))

    def redrives(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """What became of a page of jobs. Raises ApiError: then nothing was redriven."""
        content = json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        return _object(self._ask_patiently("POST", "/redrives", content=content, headers=headers))

    def dead(self, limit: int) -> dict[str, Any]:
        """A page of messages that are no job."""
        return _object(self._ask_patiently("GET", "/dead", params={"limit": limit}))

    def dead_message(self, number: int) -> dict[str, Any]:
        """One of them, with its body."""
        return _object(self._ask_patiently("GET", f"/dead/{number}"))

    def job(self, job_id: str) -> dict[str, Any]:
        """The job as it is now. Raises ApiError."""
        job = self.changed(job_id, None)
        assert job is not None  # 304 answers a condition only
        return job

    def changed(self, job_id: str, cursor: object) -> dict[str, Any] | None:
        """The job, or None when nothing has happened to it since ``cursor``, its own field of that name."""
        condition = {} if cursor is None else {"If-None-Match": f'"{cursor}"'}
        answer = self._ask_patiently("GET", f"/jobs/{_segment(job_id)}", headers=condition)
        return None if answer.status_code == httpx.codes.NOT_MODIFIED else _object(answer)

    def cancel(self, job_id: str) -> dict[str, Any]:
        """The job as it was when its end was asked for. Raises ApiError."""
        return _object(self._ask_patiently("POST", f"/jobs/{_segment(job_id)}/cancel"))

    def jobs(self, query: Query) -> dict[str, Any]:
        """A page of jobs: ``items`` and ``next``."""
        return _object(self._ask_patiently("GET", "/jobs", params=list(query)))

    def job_then(self, job_id: str, as_of: str) -> tuple[dict[str, Any], str]:
        """The job as it was, and the cursor that ``as_of`` stands for."""
        return _then(self._ask_patiently("GET", f"/jobs/{_segment(job_id)}", params={"as_of": as_of}))

    def jobs_then(self, query: Query, as_of: str) -> tuple[dict[str, Any], str]:
        """A page of jobs as they were, which may be short although there is a next one; and the cursor."""
        return _then(self._ask_patiently("GET", "/jobs", params=[*query, ("as_of", as_of)]))

    def events(self, job_id: str) -> list[dict[str, Any]]:
        """All the events of a job, in the order of the tape."""
        found: list[dict[str, Any]] = []
        after: int | None = 0
        while after is not None:
            page = _object(
                self._ask_patiently("GET", f"/jobs/{_segment(job_id)}/events", params={"after": after, "limit": 1000})
            )
            found += page["items"]
            after = page["next"]
        return found

    def _ask_patiently(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Ask again while the server says that it cannot answer just now. For what may be asked twice."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self._ask(method, path, **more)
            except _TryLater as later:
                if time.monotonic() + later.seconds > deadline:
                    raise
                time.sleep(later.seconds)

    def _ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, self.url + path, **more)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise ApiError(f"{self.url} is no address of an API ({error}): see --url / JOBTAPE_URL") from None
        except httpx.ConnectError as error:
            raise ApiError(
                f"no API at {self.url} ({one_line(str(error))}): start one with `jobtape up`, or say where it is "
                "with --url / JOBTAPE_URL"
            ) from None
        except httpx.HTTPError as error:
            said = one_line(str(error)) or type(error).__name__
            unknown = (
                f"; whether the job was accepted is not known: {_how_to_know(more)}"
                if (method, path) == ("POST", "/jobs")
                else ""
            )
            raise ApiError(f"{self.url} did not answer ({said}){unknown}") from None
        if answer.is_success or answer.status_code == httpx.codes.NOT_MODIFIED:
            return answer
        text = _refusal(answer)
        waiting = answer.status_code == httpx.codes.CONFLICT and "retry-after" in answer.headers
        if waiting or answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            raise _TryLater(text, _seconds(answer))
        raise ApiError(text)


class _TryLater(ApiError):
    def __init__(self, text: str, seconds: float) -> None:
        super().__init__(text)
        self.seconds = seconds


def _refusal(answer: httpx.Response) -> str:
    """A problem (RFC 9457) in one line."""
    try:
        problem = answer.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or "title" not in problem:
        kind = answer.headers.get("content-type", "nothing")
        return f"{answer.url} answers {answer.status_code} with {kind}, not as a Jobtape API: see --url / JOBTAPE_URL"
    text = str(problem.get("detail") or problem["title"])
    for fault in problem.get("errors") or ():
        # The detail speaks of the first one already.
        if isinstance(fault, dict) and str(fault.get("detail")) not in text:
            text = f"{text}; {fault.get('pointer')}: {fault.get('detail')}"
    if str(problem.get("type")).endswith(":invalid-query"):
        # Which of several values it was: the command line has one of each.
        text = re.sub(r"\b([a-z]+)\.\d+: ", r"\1: ", text)
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        text = f"{text}; put the key of this API into JOBTAPE_API_KEY"
    return one_line(text)


def _how_to_know(request: Mapping[str, Any]) -> str:
    keyed = "Idempotency-Key" in request.get("headers", {})
    return "submit it again under the same key" if keyed else "see `jobtape list`"


def _seconds(answer: httpx.Response) -> float:
    try:
        return min(max(float(answer.headers.get("retry-after", "1")), 0.1), PATIENCE)
    except ValueError:
        return 1.0


def _object(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise ApiError(f"{answer.url} does not answer as a Jobtape API: see --url / JOBTAPE_URL")
    return body


def _then(answer: httpx.Response) -> tuple[dict[str, Any], str]:
    return _object(answer), answer.headers.get("jobtape-as-of", "")


def _segment(job_id: str) -> str:
    if not job_id or not all(letter.isalnum() or letter == "-" for letter in job_id):
        raise ApiError(f"{one_line(job_id)!r} is no job id: `jobtape list` shows them")
    return job_id
