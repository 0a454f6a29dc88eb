"""The properties of an event say the same as those that pamqp marshals."""

import struct
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from aiormq import spec

from jobtape.consumer.subscriber_message import subscriber_message
from jobtape.schemas.events import encode
from jobtape.schemas.job import JobState
from jobtape.view.store import CommittedEvent
from tests.view.samples import job_id, submitted, succeeded

ROW = CommittedEvent(
    2**48 + 7,
    job_id(1),
    "succeeded",
    datetime(2026, 3, 1, 12, 0, 2, 999_999, tzinfo=UTC),
    encode(succeeded(submitted(1))).decode(),
    JobState.SUCCEEDED,
    "add",
    None,
    None,
    {},
)


def unmarshalled(marshalled: bytes) -> dict[str, Any]:
    found = spec.Basic.Properties()
    (flags,) = struct.unpack_from(">H", marshalled)
    found.unmarshal(flags, marshalled[2:])
    return dict(found)


@pytest.mark.parametrize(
    "row",
    [
        ROW,
        replace(ROW, correlation_id="Übung", reply_to="my.queue", labels={"tenant": "ä", "b": "x" * 70_000}),
        replace(ROW, labels={"tenant": "ä" * 300}, correlation_id="ä" * 200, job_type="a" * 60, cursor=3),
    ],
)
def test_properties_are_those_of_pamqp(row: CommittedEvent) -> None:
    properties = subscriber_message(row).properties
    values: dict[str, Any] = {name: value for name, value in properties if value is not None}
    plain = spec.Basic.Properties(**values)
    assert unmarshalled(properties.marshal()) == unmarshalled(plain.marshal())


def test_id_that_amqp_has_no_room_for_is_refused() -> None:
    event = succeeded(submitted(1)).model_copy(update={"id": "ä" * 200})
    with pytest.raises(ValueError, match="range"):
        subscriber_message(replace(ROW, event=encode(event).decode())).properties.marshal()
