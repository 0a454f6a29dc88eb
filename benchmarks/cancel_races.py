"""10,000 jobs, each cancelled over REST at a random moment of its life: one final state each, and the same when the
tape is folded again.

    .venv/bin/python -m benchmarks.cancel_races [--broker B] [--database D] [--jobs 10000] [--at-once 100]

API, worker and projector are processes of their own. At the end the tape is folded by the tests' independent checker,
and once more by a second projector into an empty view. Exits 0 only if everything held.
"""

import asyncio
import random
import sys
import time
from collections import Counter
from pathlib import Path

import httpx

from benchmarks.installation import Installation
from benchmarks.installation_options import options, place
from jobtape.consumer.projector.projector import Projector
from jobtape.view.store import Store
from tests.ledger import Ledger
from tests.waiting import eventually

LIMIT = 600.0


def main() -> int:
    """Race once; the exit status."""
    parser = options(__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=100)
    wanted = parser.parse_args()
    with place(wanted, jobs="tests.faults.jobs") as (_, made):
        made.start("projector")
        made.start("api")
        made.start("worker", "--concurrency", "100")
        made.wait_ready()
        return asyncio.run(races(made, wanted.jobs, wanted.at_once, random.Random(wanted.seed)))


async def races(made: Installation, jobs: int, at_once: int, chance: random.Random) -> int:
    """All of them, and the comparison."""
    ledger, answers = Ledger(), Counter[int]()
    slots = asyncio.Semaphore(at_once)
    began = time.monotonic()
    limits = httpx.Limits(max_connections=at_once, keepalive_expiry=1.0)  # before the server closes them
    async with httpx.AsyncClient(base_url=made.url, timeout=60, limits=limits) as client:

        async def race() -> None:
            seconds = chance.uniform(0.1, 1.0)
            moment = chance.uniform(0, seconds)
            async with slots:
                order = {"type": "nap", "payload": {"seconds": seconds}}
                job_id = (await client.post("/jobs", json=order)).raise_for_status().json()["id"]
                ledger.ok.append(job_id)
                await asyncio.sleep(moment)
                answers[(await client.post(f"/jobs/{job_id}/cancel")).status_code] += 1

        await asyncio.gather(*(race() for _ in range(jobs)))
    raced = time.monotonic() - began
    store = made.store()
    await eventually(lambda: _final(store) >= jobs, LIMIT, what="every job is final")
    report = await made.checker().check(store, ledger, timeout=LIMIT)
    states = {job_id: store.job(job_id).state.value for job_id in ledger.ok}  # type: ignore[union-attr]
    again = await _folded_again(made, ledger, jobs)
    same = again == states
    print(f"{jobs} races in {raced:.0f} s; answers {dict(answers)}; states {dict(Counter(states.values()))}")
    print(f"{report}; folded again: {'the same' if same else 'ANOTHER RESULT'}")
    store.close()
    held = not report.problems and same and set(states.values()) <= {"succeeded", "cancelled"}
    return 0 if held and set(answers) <= {202, 409} else 1


def _final(store: Store) -> int:
    return sum(n for (_, event), n in store.counts().items() if event in ("succeeded", "failed", "cancelled"))


async def _folded_again(made: Installation, ledger: Ledger, jobs: int) -> dict[str, str]:
    """The states in a view of its own, made from the first message of the same tape."""
    store = Store(f"sqlite:///{Path(made.folder) / 'again.db'}")
    projector = Projector(made.environment["RABBITMQ_URL"], made.topology, store, owner="again", lease=4.0)
    stop = asyncio.Event()
    running = asyncio.create_task(projector.run(stop))
    await eventually(lambda: projector.trouble is None, LIMIT, what="the second projector folds")
    await eventually(lambda: _final(store) >= jobs, LIMIT, what="the second view is complete")
    stop.set()
    await running
    states = {job_id: store.job(job_id).state.value for job_id in ledger.ok}  # type: ignore[union-attr]
    store.close()
    return states


if __name__ == "__main__":
    sys.exit(main())
