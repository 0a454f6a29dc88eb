"""A running Jobtape used over HTTP: ``from jobtape import Client, SyncClient``."""

from jobtape.client.client import Client
from jobtape.client.errors import (
    ApiError,
    Conflict,
    Invalid,
    JobNotSucceeded,
    NoAnswer,
    NotConfirmed,
    NotFound,
    NotInTime,
    Refused,
    Unauthorized,
    Unavailable,
    Unreachable,
    WrongAddress,
)
from jobtape.client.handle import Handle
from jobtape.client.sync import SyncClient, SyncHandle

__all__ = [
    "ApiError",
    "Client",
    "Conflict",
    "Handle",
    "Invalid",
    "JobNotSucceeded",
    "NoAnswer",
    "NotConfirmed",
    "NotFound",
    "NotInTime",
    "Refused",
    "SyncClient",
    "SyncHandle",
    "Unauthorized",
    "Unavailable",
    "Unreachable",
    "WrongAddress",
]
