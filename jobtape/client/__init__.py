"""Clients of the API over HTTP: ``from jobtape import Client, SyncClient``.

``jobtape.client.errors`` lists what they raise.
"""

from typing import TYPE_CHECKING, Any

from jobtape.client.errors import (
    ApiError,
    ClientClosed,
    ClientForked,
    Conflict,
    Invalid,
    JobNotSucceeded,
    NoAnswer,
    NotConfirmed,
    NotFound,
    NotInTime,
    RequestRefused,
    Unauthorized,
    Unavailable,
    Unreachable,
    WrongAddress,
    WrongKey,
)

if TYPE_CHECKING:
    from jobtape.client.client import Client, Handle
    from jobtape.client.sync.client import SyncClient, SyncHandle

__all__ = [
    "ApiError",
    "Client",
    "ClientClosed",
    "ClientForked",
    "Conflict",
    "Handle",
    "Invalid",
    "JobNotSucceeded",
    "NoAnswer",
    "NotConfirmed",
    "NotFound",
    "NotInTime",
    "RequestRefused",
    "SyncClient",
    "SyncHandle",
    "Unauthorized",
    "Unavailable",
    "Unreachable",
    "WrongAddress",
    "WrongKey",
]


def __getattr__(name: str) -> Any:
    # Imported on first use, because the command line uses parts of this package and must start quickly.
    if name in ("Client", "Handle", "SyncClient", "SyncHandle"):
        from jobtape.client.sync import client as sync  # noqa: PLC0415

        return getattr(sync, name)
    raise AttributeError(f"module 'jobtape.client' has no attribute {name!r}")
