"""Whole installations under accidents, at full size; the suite has the same faults at a smaller one.

    .venv/bin/python -m benchmarks.chaos plain|kill|reads [--broker B] [--database D] [--jobs 10000] [--seed 1]

plain: jobs through ``POST /jobs/batch``, then the view against an independent fold of the tape, field by field.
kill:  the same while workers and two projectors are SIGKILLed again and again; also how soon the second takes over.
reads: POST to one API process and GET from another, with the projector live and stopped: never a false 404.

Exits 0 only if everything held.
"""

import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from uuid import uuid4

import anyio
import httpx
import uuid_utils

from benchmarks.installation import EXAMPLE_QUEUES, Installation, Part, installation
from benchmarks.installation_options import options, place
from jobtape.schemas.job import FINAL
from jobtape.view.store import Store
from tests.checker import Report
from tests.ledger import Ledger

LIMIT = 600.0
BATCH = 1000


def main() -> int:
    """Run one of them; the exit status."""
    parser = options(__doc__)
    parser.add_argument("what", choices=["plain", "kill", "reads"])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    with place(wanted, jobs="examples.jobs", queues=EXAMPLE_QUEUES) as (_, made):
        if wanted.what == "reads":
            return reads(made)
        return drained(made, wanted.jobs, random.Random(wanted.seed) if wanted.what == "kill" else None)


def drained(made: Installation, jobs: int, chance: random.Random | None) -> int:
    """Submit, wait until all are final, compare. With ``chance``, kill meanwhile."""
    made.start("projector")
    made.start("api")
    made.start("worker")
    made.wait_ready()
    ledger = Ledger()
    if chance is not None:
        print(f"take-over after {_take_over(made, ledger):.1f} s")
    ended = threading.Event()
    killed: Counter[str] = Counter()
    killer = threading.Thread(target=_kill, args=(made, chance, ended, killed))
    if chance is not None:
        killer.start()
    try:
        with made.client() as client:
            for start in range(0, jobs, BATCH):
                items = [{"type": "add", "payload": {"x": n, "y": 1}} for n in range(start, min(start + BATCH, jobs))]
                for item in client.post("/jobs/batch", json=items).raise_for_status().json()["items"]:
                    (ledger.ok if item["status"] == "accepted" else ledger.unknown).append(item["id"])
            print(f"accepted {len(ledger.ok)}, unknown {len(ledger.unknown)}")
            _wait_final(client, jobs, ended if chance is not None else None)
    finally:
        ended.set()
        if chance is not None:
            killer.join()
    store = made.store()
    report: Report = anyio.run(partial(made.checker().check, store, ledger, timeout=120))
    states = Counter(store.job(job_id).state.value for job_id in ledger.ok)  # type: ignore[union-attr]
    print(f"killed {dict(killed)}; states {dict(states)}; {report}")
    store.close()
    return 1 if report.problems or set(states) != {"succeeded"} else 0


def _wait_final(client: httpx.Client, jobs: int, killing: threading.Event | None) -> None:
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        time.sleep(0.5)
        done = 0.0
        for line in client.get("/metrics").text.splitlines():
            if line.startswith("jobtape_events_total{") and any(f'event="{state}"' in line for state in FINAL):
                done += float(line.rsplit(" ", 1)[1])
        if killing is not None and done > jobs * 0.9:
            killing.set()  # let the last ones end in peace
        if done >= jobs:
            return
    raise TimeoutError(f"{done:g} of {jobs} jobs are final after {LIMIT:g} s")


def _kill(made: Installation, chance: random.Random | None, ended: threading.Event, killed: "Counter[str]") -> None:
    assert chance is not None
    while not ended.wait(chance.uniform(0.5, 2.0)):
        part = chance.choice([part for part in made.parts if part.name in ("worker", "projector")])
        part.kill()
        killed[part.name] += 1
        made.parts.remove(part)
        made.start(part.name)


def _take_over(made: Installation, ledger: Ledger) -> float:
    """Seconds from the death of the active projector until the second has folded a job submitted after it."""
    store = made.store()
    second = made.start("projector")
    first = next(part for part in made.parts if part.name == "projector")
    _wait_for(lambda: "standing by" in second.output(), 30)
    with made.client() as client:
        owner = _owner(store)
        first.kill()
        made.parts.remove(first)
        began = time.monotonic()
        job_id = client.post("/jobs", json={"type": "add", "payload": {"x": 1, "y": 1}}).json()["id"]
        ledger.ok.append(job_id)
        _wait_for(lambda: store.job(job_id) is not None, 60)
        took = time.monotonic() - began
        assert _owner(store) != owner
    store.close()
    return took


def _owner(store: Store) -> str | None:
    checkpoint = store.checkpoint()
    return None if checkpoint is None else checkpoint.owner


def _wait_for(condition: object, limit: float) -> None:
    assert callable(condition)
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {limit:g} s")
        time.sleep(0.02)


def reads(made: Installation) -> int:
    """POST here, GET there."""
    projector = made.start("projector")
    made.start("api")
    made.start("worker")
    with installation() as other:  # only for its port; it shares broker, namespace and database with the first
        other.environment.update(
            {name: made.environment[name] for name in ("DATABASE_URL", "JOBTAPE_NAMESPACE", "RABBITMQ_URL")}
        )
        other.start("api")
        made.wait_ready()
        other.wait_ready()
        with made.client() as here, other.client() as there:
            live = Counter(_post_and_get(here, there, n) for n in range(1000))
            print(f"projector live, 1,000 times: {dict(live)}")
            unknown = _timed(there, str(uuid_utils.uuid7()))
            old = _timed(there, "01890000-0000-7000-8000-000000000000")
            print(f"just made and unknown: {unknown}; old and unknown: {old}")
            _freeze(projector, signal.SIGSTOP)
            with ThreadPoolExecutor(20) as pool:
                stopped = Counter(pool.map(lambda n: _post_and_get(here, there, n), range(100)))
            _freeze(projector, signal.SIGCONT)
            print(f"projector stopped, 100 times: {dict(stopped)}")
            late = _timed(there, str(uuid4()))
            print(f"after it goes on, an unknown id that tells no time: {late}")
    held = set(live) == {200} and set(stopped) <= {200, 503} and unknown[0] == old[0] == late[0] == 404
    return 0 if held else 1


def _post_and_get(here: httpx.Client, there: httpx.Client, n: int) -> int:
    made = here.post("/jobs", json={"type": "add", "payload": {"x": n, "y": n}}).raise_for_status()
    return there.get(f"/jobs/{made.json()['id']}").status_code


def _timed(client: httpx.Client, job_id: str) -> tuple[int, str]:
    began = time.monotonic()
    status = client.get(f"/jobs/{job_id}").status_code
    return status, f"{(time.monotonic() - began) * 1000:.0f} ms"


def _freeze(part: Part, how: signal.Signals) -> None:
    os.kill(part.process.pid, how)


if __name__ == "__main__":
    sys.exit(main())
