"""``ctx.spawn`` in executions that are repeated. Apart from test_submitting, whose worker runs for all of its tests:
a handler's submission must find one installation in the process.
"""

from functools import partial

import pytest

from jobtape.cli.parts.worker import submissions
from jobtape.schemas.events import Succeeded, encode
from jobtape.schemas.flows.flow import spawned_id
from jobtape.settings import read_settings
from jobtape.view.store import Store
from tests.consumer import submitting_jobs as jobs
from tests.consumer.installation import Rig, order_event
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


async def test_spawned_job_is_one_however_often_its_handler_is_executed(rig: Rig, view: Store, broker_url: str) -> None:
    """By another worker too, as after a crash."""
    known = {each.name: each for each in (jobs.spawn, jobs.spawn_isolated, jobs.child)}
    settings = read_settings(rabbitmq_url=broker_url, namespace=rig.topology.namespace, database_url="sqlite:////no.db")
    parents = [order_event(rig.topology, name, {"n": 2}) for name in ("spawn", "spawn-isolated")]
    async with rig.projector(view), submissions(settings, known, "w"):
        for execution in (1, 2):
            for parent in parents:
                await rig.put(encode(parent))
            async with rig.worker(*known.values(), modules=["tests.consumer.submitting_jobs"]):
                for parent in parents:
                    await eventually(partial(_has_succeeded, rig, parent.subject, execution), what="it is executed")
                    for job_id in _result(rig, parent.subject):
                        await eventually(partial(_has_succeeded, rig, job_id, 1), what="the child runs")
        for parent in parents:
            children = _result(rig, parent.subject)
            assert {tuple(each.data.result) for each in rig.of(parent.subject) if isinstance(each, Succeeded)} == {
                tuple(children)
            }
            for n, job_id in enumerate(children):
                child = view.job(job_id)
                assert child is not None and (child.flow, child.node, child.depth) == (parent.subject, str(n), 1)
                assert rig.names(job_id).count("submitted") >= 2
                assert rig.names(job_id).count("placed") == 1
                assert spawned_id(parent.subject, 2, str(n)) not in children


def _has_succeeded(rig: Rig, job_id: str, times: int) -> bool:
    return rig.names(job_id).count("succeeded") >= times


def _result(rig: Rig, job_id: str) -> list[str]:
    return next(each.data.result for each in rig.of(job_id) if isinstance(each, Succeeded))
