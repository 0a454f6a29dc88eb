"""How large the signals of a run may be."""

import pytest

from tests.producer.running_api import Api, problem

pytestmark = pytest.mark.anyio


async def test_all_signals_of_a_run_have_the_room_of_one_payload(projected: Api) -> None:
    path = f"/jobs/{(await projected.submit())['id']}/signals"
    large = {"payload": {"text": "a" * 500_000}}
    for name in ("one", "two"):
        sent = await projected.client.post(f"{path}/{name}", json=large, headers={"Idempotency-Key": name})
        assert sent.status_code == 200, sent.text
    refused = await projected.client.post(f"{path}/three", json=large)
    assert "of all signals of this run" in problem(refused, 413, "payload-too-large")["detail"]
    small = await projected.client.post(f"{path}/three", json={"payload": {"by": "Ada"}})
    assert sorted(small.json()["signals"]) == ["one", "three", "two"]
    again = await projected.client.post(f"{path}/one", json=large, headers={"Idempotency-Key": "one"})
    assert again.status_code == 200, "a repeat needs no further room"
