"""Opens the API for the command line, whose commands read its answers as JSON, for tables and for ``--json``.

A person is waiting, so it reports at once when no API can be reached. The key comes from JOBTAPE_API_KEY, because an
option would be visible in ``ps``.
"""

from collections.abc import Mapping
from typing import Any, Final

from jobtape import SyncClient
from jobtape.client import client
from jobtape.client.connection import RequestPolicy
from jobtape.client.errors import ApiError, NoAnswer

HINT: Final = "--url / JOBTAPE_URL"
TIMEOUT: Final = 30.0
AT_ONCE: Final = RequestPolicy(timeout=TIMEOUT, patience=30.0, after_cuts=False, hint=HINT)
ONCE_CONNECTED: Final = RequestPolicy(timeout=TIMEOUT, patience=0.0, after_cuts=True, hint=HINT)
"""For long reads: the API must be reachable at the beginning and may be unavailable later."""


def connect(url: str, policy: RequestPolicy = AT_ONCE) -> SyncClient:
    """Return a client for ``with``. Its methods raise ApiError."""
    return SyncClient(url, policy=policy)


def submit(api: SyncClient, submission: Mapping[str, Any], idempotency_key: str | None = None) -> dict[str, Any]:
    """Submit a job and return it, or the job that was accepted before under the same key. Raises ApiError."""
    headers, keyed = {"Content-Type": "application/json"}, idempotency_key is not None
    if idempotency_key is not None:
        try:
            headers = client.submission_headers(idempotency_key)
        except ValueError as error:
            raise ApiError(str(error)) from None
    try:
        return api.request(
            "POST", "/jobs", repeatable=keyed, content=client.json_of(submission), headers=headers
        ).content
    except NoAnswer as error:
        how = "submit it again under the same key" if keyed else "see `jobtape list`"
        raise ApiError(f"{error}; it is not known whether the job was accepted: {how}") from None


def job_path(job_id: str) -> str:
    """Return the path of a job. Raises ApiError when ``job_id`` cannot be a job id."""
    try:
        return client.job_path(job_id)
    except ValueError as error:
        raise ApiError(f"{error}: `jobtape list` shows the ids") from None
