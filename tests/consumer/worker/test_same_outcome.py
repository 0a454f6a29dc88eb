"""An outcome is the same on the loop, in a thread and in a process."""

import pytest

from tests.consumer import same_outcome_jobs as jobs
from tests.consumer.installation import Rig

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("kind", "error", "attempts"), [("fails", "LookupError", 2), ("exit", "SystemExit", 1), ("mute", "Mute", 2)]
)
async def test_outcome_is_the_same_on_loop_thread_and_process(
    folded_rig: Rig, kind: str, error: str, attempts: int
) -> None:
    rig = folded_rig  # the second attempt is placed by a projector
    types = (jobs.in_thread, jobs.on_loop, jobs.isolated, jobs.aisolated)
    async with rig.worker(*types):
        submitted = [await rig.submit(each.name, {"kind": kind}, max_attempts=2) for each in types]
        for job_id in submitted:
            failed = (await rig.outcome(job_id)).data
            assert (failed.reason, failed.error.type, failed.attempt) == ("error", error, attempts)
            assert failed.error.message


async def test_isolated_executions_share_loop_but_no_context(rig: Rig) -> None:
    async with rig.worker(jobs.context, jobs.acontext, jobs.keep, concurrency=1):
        for name in ("context.def", "context.async") * 2:
            assert (await rig.outcome(await rig.submit(name))).data.result == ["none", 28]
        for _ in range(3):
            outcome = await rig.outcome(await rig.submit("loop.keep"))
            assert (outcome.name, outcome.data.result) == ("succeeded", 0)
