"""Opens the API for the command line, whose commands read its answers as JSON, for tables and for ``--json``.

A person is waiting, so it reports at once when no API can be reached. The key comes from JOBTAPE_API_KEY, because an
option would be visible in ``ps``. HTTP is imported on first use, because ``jobtape worker`` does not need it.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from jobtape.schemas.errors import JobtapeError

if TYPE_CHECKING:
    from jobtape import SyncClient

TIMEOUT: Final = 30.0


def connect(url: str, *, at_once: bool = True) -> "SyncClient":
    """Return a client for ``with``. Its methods raise ApiError.

    ``at_once``: raise also when the connection is lost later. Otherwise the API must be reachable at the beginning
    only, for long reads.
    """
    from jobtape import SyncClient  # noqa: PLC0415
    from jobtape.client.http.connection import RequestPolicy  # noqa: PLC0415

    policy = RequestPolicy(
        timeout=TIMEOUT,
        patience=30.0 if at_once else 0.0,
        after_cuts=not at_once,
        hint="--url / JOBTAPE_URL",
    )
    return SyncClient(url, policy=policy)


def ask(url: str, method: str, path: str, **options: Any) -> dict[str, Any]:
    """Send one request and return the JSON object of the answer. ``options`` are those of httpx. Raises ApiError."""
    with connect(url) as api:
        return api.request(method, path, **options).content


def post_json(api: "SyncClient", path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Post a JSON object and return the one of the answer. Raises ApiError."""
    from jobtape.client.http.bodies import json_of  # noqa: PLC0415

    headers = {"Content-Type": "application/json"}
    return api.request("POST", path, content=json_of(body), headers=headers).content


def submit_to(api: "SyncClient", submission: Mapping[str, Any], idempotency_key: str | None = None) -> dict[str, Any]:
    """Submit a job and return it, or the job that was accepted before under the same key. Raises JobtapeError."""
    from jobtape.client.errors import ApiError, NoAnswer  # noqa: PLC0415
    from jobtape.client.http.bodies import json_of, submission_headers  # noqa: PLC0415

    headers, keyed = {"Content-Type": "application/json"}, idempotency_key is not None
    if idempotency_key is not None:
        try:
            headers = submission_headers(idempotency_key)
        except ValueError as error:
            raise JobtapeError(str(error)) from None
    try:
        answer = api.request("POST", "/jobs", repeatable=keyed, content=json_of(submission), headers=headers)
    except NoAnswer as error:
        how = "submit it again under the same key" if keyed else "see `jobtape list`"
        raise ApiError(f"{error}; it is not known whether the job was accepted: {how}") from None
    return answer.content


def job_path(job_id: str) -> str:
    """Return the path of a job. Raises JobtapeError when ``job_id`` cannot be a job id."""
    from jobtape.client import client  # noqa: PLC0415

    try:
        return client.job_path(job_id)
    except ValueError as error:
        raise JobtapeError(f"{error}: `jobtape list` shows the ids") from None
