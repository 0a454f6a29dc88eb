"""Exactly the committed jobs exist when the application that submits and forwards them is killed."""

import asyncio
import json
import os
import random
import signal
import sys
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import select

from jobtape.view.store import Store
from tests.checker import Checker
from tests.cli.programs import Program
from tests.consumer.installation import Rig
from tests.faults.apis import ROOT
from tests.faults.jobs import add
from tests.faults.scale import SCALE, scaled
from tests.ledger import Ledger
from tests.namespaces import environment_for
from tests.outbox.user_database import Kind, UserDatabase, orders, outbox
from tests.waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180 * max(1.0, SCALE))]

TRANSACTIONS = 2 * scaled(80)
KILLS = scaled(2)
KINDS: tuple[Kind, ...] = ("session", "async session") if SCALE > 1 else ("async session",)


@pytest.mark.parametrize("kind", KINDS)
async def test_exactly_the_committed_jobs_run(
    users: UserDatabase, database_url: str, rig: Rig, tmp_path: Path, kind: Kind
) -> None:
    """Half of the transactions are rolled back, and the application is killed at random moments.

    JasperFx/wolverine#565: after a crash the rest of an outbox was not sent for an hour.
    """
    view = Store(f"sqlite:///{tmp_path / 'jobs.db'}")
    view.migrate()
    command = [sys.executable, "-m", "tests.outbox.shop", json.dumps([database_url, kind, TRANSACTIONS])]
    environment = os.environ | environment_for(rig.url, rig.topology) | {"JOBTAPE_PUBLISH_TIMEOUT": "1"}
    chance = random.Random(16)
    async with rig.projector(view), rig.worker(add):
        for share in sorted(chance.random() for _ in range(KILLS)):
            program = Program(command, environment, ROOT)
            committed = int(share * TRANSACTIONS / 2)
            await eventually(partial(_has, users, committed), 60, what=f"{committed} orders: {program.lines}")
            program.send(signal.SIGKILL)
            await asyncio.to_thread(program.code)
            program.close()
        program = Program(command, environment, ROOT)
        assert await asyncio.to_thread(program.code) == 0, program.lines
        program.close()
        with users.engine.begin() as connection:
            found = {row.n: row.job_id for row in connection.execute(select(orders))}
        assert sorted(found) == list(range(0, TRANSACTIONS, 2))
        assert users.rows(outbox) == 0
        for job_id in found.values():
            await rig.outcome(job_id)
        report = await Checker(rig.url, rig.topology).check(view, Ledger(ok=list(found.values())))
    assert not report.problems, str(report)
    assert report.jobs == len(found)
    assert report.repeated == 0
    assert {event.subject for event in rig.events} == set(found.values())
    again = sum(event.name == "submitted" for event in rig.events) - len(found)
    print(f"{report}; {again} published again")
    view.close()


def _has(users: UserDatabase, committed: int) -> bool:
    return users.rows(orders) >= committed
