"""Tests of jobs: ``run`` runs one handler, ``memory`` a whole installation without a broker.

    out = run(hello, name="Ada")

    async with memory([hello]) as jt:
        job = await hello.submit(name="Ada")
        await jt.drain()
        assert jt[job].result == "Hello, Ada"

The pytest plugin has the fixture ``jobtape``, which is such an installation.
"""

from jobtape.testing.idempotence import assert_idempotent
from jobtape.testing.installation import Installation
from jobtape.testing.opening import Opening, memory, on_broker
from jobtape.testing.replays import Replayed, replay_tape
from jobtape.testing.runs import HandlerFailed, run

__all__ = [
    "HandlerFailed",
    "Installation",
    "Opening",
    "Replayed",
    "assert_idempotent",
    "memory",
    "on_broker",
    "replay_tape",
    "run",
]
