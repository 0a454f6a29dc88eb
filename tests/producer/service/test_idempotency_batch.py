"""Idempotency keys of the items of a batch."""

import pytest

from jobtape.schemas.events import Submitted
from jobtape.view.store import Store
from tests.consumer.installation import Rig
from tests.producer.keyed_submissions import ADD, abandon, batch, post
from tests.producer.running_api import Api
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


async def test_batch_items_have_their_own_keys(projected: Api, view: Store, rig: Rig) -> None:
    single = (await post(projected, "single")).json()
    dead = abandon(view, "dead", single, lease=0.0)
    busy = abandon(view, "busy", single)
    other = {"type": "add", "payload": {"x": 9}}
    items = [
        ADD,
        ADD | {"idempotency_key": "new"},
        ADD | {"idempotency_key": "single"},
        ADD | {"idempotency_key": "new"},
        other | {"idempotency_key": "new"},
        other | {"idempotency_key": "single"},
        ADD | {"idempotency_key": "dead"},
        ADD | {"idempotency_key": "busy"},
        ADD | {"idempotency_key": "a b"},
        ADD | {"type": "nope", "idempotency_key": "late"},
        other | {"idempotency_key": "late"},
    ]
    for _ in range(2):
        found = await batch(projected, *items)
        shown = [
            (item["status"], (item.get("problem") or {}).get("type", "").rpartition(":")[2]) for item in found["items"]
        ]
        assert shown == [
            ("accepted", ""),
            ("accepted", ""),
            ("accepted", ""),
            ("accepted", ""),
            ("refused", "idempotency-key-reused"),
            ("refused", "idempotency-key-reused"),
            ("accepted", ""),
            ("unknown", ""),
            ("refused", "invalid-submission"),
            ("refused", "unknown-job-type"),
            ("accepted", ""),
        ]
        ids = [item.get("id") for item in found["items"]]
        assert ids[1] == ids[3]
        assert (ids[2], ids[6], ids[7]) == (single["id"], dead.job_id, busy.job_id)
    # The one without a key twice; under keys: single, new, dead and late once.
    await eventually(rig.depth_is(6))
    await eventually(lambda: len([event for event in rig.events if isinstance(event, Submitted)]) == 6)
    assert (await post(projected, "new")).json()["id"] == ids[1], "a key means the same in both"


async def test_batch_item_is_unknown_when_takeover_times_out(served: Api, view: Store) -> None:
    served.producer._barrier._timeout = 0.3
    row = abandon(view, "dead", (await post(served, "done")).json(), lease=0.0)
    found = await batch(served, ADD, ADD | {"idempotency_key": "dead"})
    assert [item["status"] for item in found["items"]] == ["accepted", "unknown"]
    assert found["items"][1]["id"] == row.job_id
