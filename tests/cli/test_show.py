"""Tests how events are printed that lack optional fields."""

import json

import pytest

from jobtape.cli import printing as show
from jobtape.schemas import events
from jobtape.schemas.events import Progressed, ProgressedData
from tests.view.samples import NOON, SOURCE, job_id

PROGRESSED = Progressed(
    id="1",
    source=SOURCE,
    subject=job_id(1),
    time=NOON,
    data=ProgressedData(job_type="add", run=1, attempt=1, execution="e1", n=1, fraction=0.5),
)


def test_progress_without_a_message_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Events on the tape have no field for a value that is not set."""
    event = json.loads(events.encode(PROGRESSED)) | {"cursor": 7, "accepted": True}
    show.print_events([event])
    assert capsys.readouterr().out.splitlines()[-1].split()[-4:] == ["progressed", "1", "1", "50%"]
    show.print_delivered(event)
    assert capsys.readouterr().out.split()[-4:] == ["add", "progressed", job_id(1), "50%"]
