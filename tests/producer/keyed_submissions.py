"""Submissions under an idempotency key, and the rows behind them."""

from datetime import datetime
from typing import Any

import httpx
from sqlalchemy import text

from jobtape.producer.service.ids import new_job_id
from jobtape.view.store import KeyedSubmission, Store
from tests.producer.running_api import Api

ADD: dict[str, Any] = {"type": "add", "payload": {"x": 1, "y": 2}}
"""A valid submission."""


async def post(served: Api, key: str, body: dict[str, Any] | None = None, **more: Any) -> httpx.Response:
    return await served.client.post("/jobs", json=body or ADD, headers={"Idempotency-Key": key}, **more)


async def batch(served: Api, *items: dict[str, Any]) -> dict[str, Any]:
    answer = await served.client.post("/jobs/batch", json=list(items))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def rows(store: Store) -> list[Any]:
    with store._database.reading() as connection:
        return list(connection.execute(text("SELECT * FROM idempotency ORDER BY key")).mappings().all())


def expire(store: Store, *, accepted: bool | None = None) -> None:
    """Expire all leases. With ``accepted`` False, also mark all submissions as not accepted."""
    with store._database.writing() as connection:
        connection.execute(text("UPDATE idempotency SET lease_until = 1"))
        if accepted is False:
            connection.execute(text("UPDATE idempotency SET accepted = :no"), {"no": False})


def rename(store: Store, table: str, name: str) -> None:
    """Rename a table, so that statements on it fail."""
    with store._database.writing() as connection:
        connection.execute(text(f"ALTER TABLE {table} RENAME TO {name}"))


def abandon(store: Store, key: str, job: dict[str, Any], *, lease: float = 30.0, scope: str = "api") -> KeyedSubmission:
    """Write the row of an API that died before it published: for the submission of ``job``, under another key."""
    with store._database.reading() as connection:
        digest = connection.execute(
            text("SELECT digest FROM idempotency WHERE job_id = :id"), {"id": job["id"]}
        ).scalar_one()
    row = KeyedSubmission(key, digest, new_job_id(), submitted_at(job))
    store.keys.claim(scope, f"dead-{key}", [row], lease)
    return row


def submitted_at(job: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(job["submitted_at"])
