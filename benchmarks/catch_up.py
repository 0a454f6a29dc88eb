"""A subscriber from the first event on, started in the middle of many jobs, and killed and restarted by name.

    .venv/bin/python -m benchmarks.catch_up [--broker B] [--database D] [--jobs 20000] [--kills 5] [--seed N]

A process with ``jobtape.subscribe(name=…, since="first")`` notes each event as its loop's body. It begins when half of
the jobs are submitted, and gets SIGKILL after a random number of events. At the end what it noted, repeats dropped by
id, is the accepted history, event by event, in the tape's order. Reported: repeats before they were dropped (one a kill
at most: the body had ended, its position was not stored), and how fast it was.

Exits 0 only if everything held.
"""

import random
import sys
import time
from threading import Thread

from benchmarks import paced
from benchmarks.installation import Installation
from benchmarks.installation_options import options, place
from tests.faults.subscriber import Subscriber, without_repeats
from tests.faults.test_catch_up import everything
from tests.ledger import Ledger

LIMIT = 600.0
RATE = 1000.0
NAME = "catch-up"


def main() -> int:
    """Run once; the exit status."""
    parser = options(__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    wanted = parser.parse_args()
    print(f"seed {wanted.seed}")
    random.seed(wanted.seed)
    with place(wanted, jobs="benchmarks.jobs") as (_, made):
        return run(made, wanted.jobs, wanted.kills)


def run(made: Installation, jobs: int, kills: int) -> int:
    """Submit half, subscribe, submit the rest and kill meanwhile, wait, compare."""
    for part in ("projector", "api", "worker"):
        made.start(part)
    made.wait_ready()
    store, ledger = made.store(), Ledger()
    half = [{"type": "add", "payload": {"x": 1, "y": 2}}] * (jobs // 2)
    settings = {"database_url": made.environment["DATABASE_URL"], "lease": 1.0}
    try:
        with made.client() as client:
            paced.submit(client, half, ledger, rate=RATE)
            began = time.monotonic()
            rest = Thread(target=lambda: paced.submit(client, half, ledger, rate=RATE))
            rest.start()
            with Subscriber(made.folder / "heard", settings, name=NAME, since="first") as subscriber:
                for number in range(1, kills + 1):
                    # Its lives are of about the same length, so that the last is over when much is still to come.
                    wanted = round(jobs * (number - random.random() / 2) / (kills + 1))
                    _until_heard(wanted, subscriber)
                    subscriber.kill()
                    print(
                        f"killed behind {len(subscriber.lines())} events, {time.monotonic() - began:.1f} s", flush=True
                    )
                    subscriber.start()
                rest.join()
                paced.wait_final(store, ledger, LIMIT)
                final = time.monotonic() - began
                expected = everything(store)
                _until_heard(len(expected), subscriber)
                received = time.monotonic() - began
                lines = subscriber.lines()
        same, repeats = without_repeats(lines) == expected, len(lines) - len(expected)
        count = f"{len(ledger.ok)} jobs, {len(expected)} events"
        print(f"{count}: all final after {final:.0f} s, all heard after {received:.0f} s")
        print(f"every event once, in the tape's order: {same}; repeats before they were dropped: {repeats}")
        position = store.positions.read(f"subscription.{NAME}")
    finally:
        store.close()
    print(f"position: {position}")
    return 0 if same and repeats <= kills and len(ledger.ok) == jobs else 1


def _until_heard(n: int, subscriber: Subscriber) -> None:
    deadline = time.monotonic() + LIMIT
    while len(without_repeats(subscriber.lines())) < n:
        if subscriber.trouble is not None:
            raise RuntimeError(f"the subscriber has ended: {subscriber.trouble}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {LIMIT:g} s; it has heard {len(subscriber.lines())}")
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
