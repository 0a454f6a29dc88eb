"""Measures how long it takes until all good jobs have succeeded, and the jobs among them that kill workers have failed.

    .venv/bin/python -m benchmarks.checks.faults.poison [--broker B] [--database D] [--good 1000] [--poison 10]
        [--processes 1]

Concurrency 16, so 20 jobs are prefetched. Exits 0 only if all good jobs succeeded and all others failed with the reason
crash_loop within the limit.
"""

import sys
import time
from collections import Counter

from benchmarks.rig.installation import installation, options
from jobtape.view.store import JobQuery, Store

CONCURRENCY = 16


def main() -> int:
    """Run the measurement, and return the exit status."""
    parser = options(__doc__)
    parser.add_argument("--good", type=int, default=1000)
    parser.add_argument("--poison", type=int, default=10)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--limit", type=float, default=120.0)
    wanted = parser.parse_args()
    total = wanted.good + wanted.poison
    every = total / wanted.poison if wanted.poison else total + 1
    with installation(wanted, jobs="tests.faults.poison_jobs") as (_, made):
        items = []
        for n in range(total):
            is_poison = int(n / every) != int((n + 1) / every)
            name = ("poison", "apoison") if is_poison else ("good", "agood")
            items.append({"type": name[(n // 2) % 2], "payload": {} if is_poison else {"n": n}})
        made.start("up", "--concurrency", str(CONCURRENCY), "--processes", str(wanted.processes))
        made.wait_ready()
        with made.client() as client:
            started = time.monotonic()
            answer = client.post("/jobs/batch", json=items).raise_for_status().json()
            assert answer["accepted"] == total, answer
            store = made.store()
            printed = 0.0
            while True:
                ended = _ended(store)
                took = time.monotonic() - started
                if sum(ended.values()) >= total or took > wanted.limit:
                    break
                if took - printed > 5:
                    printed = took
                    print(f"{took:5.0f} s {dict(ended)}", flush=True)
                time.sleep(0.2)
            store.close()
        output = made.parts[0].output()
    crashes = output.count("; starting it again in")
    print(
        f"{took:.1f} s: {dict(ended)}; the worker died {crashes} times; 'Traceback' {output.count('Traceback')} times"
    )
    expected = {("good", "succeeded"): wanted.good, ("poison", "crash_loop"): wanted.poison}
    return 0 if dict(ended) == {key: n for key, n in expected.items() if n} and took <= wanted.limit else 1


def _ended(store: Store) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    before: str | None = None
    while page := store.list_jobs(JobQuery(before=before, limit=500)):
        for job in page:
            if job.final:
                found[job.type.removeprefix("a"), job.reason or job.state.value] += 1
        before = page[-1].id
    return found


if __name__ == "__main__":
    sys.exit(main())
