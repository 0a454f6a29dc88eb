"""Rebuilds under load, and from the tape alone."""

import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from benchmarks.checks.tape.setup import Setup, all_jobs, same_view

RATE = 200
ROUNDS = 3


def under_load(setup: Setup) -> None:
    """Rebuild ROUNDS times while RATE jobs a second arrive."""
    stop = threading.Event()
    failures: list[BaseException] = []
    submitted = reads = 0

    def submit() -> None:
        nonlocal submitted
        with setup.made.client() as client:
            due = time.monotonic()
            while not stop.is_set():
                items = [{"type": "double", "payload": {"n": setup.jobs + submitted + n}} for n in range(RATE // 10)]
                assert client.post("/jobs/batch", json=items).json()["accepted"] == len(items)
                submitted += len(items)
                due += 0.1
                stop.wait(max(0.0, due - time.monotonic()))

    def read() -> None:
        nonlocal reads
        highest: dict[str, int] = {}
        with setup.made.client() as client:
            while not stop.is_set():
                answer = client.get("/jobs", params={"limit": 200})
                assert answer.status_code == 200, answer.text
                for job in answer.json()["items"]:
                    assert job["cursor"] >= highest.get(job["id"], 0), f"{job['id']} went back"
                    highest[job["id"]] = job["cursor"]
                one = client.get(f"/jobs/{next(iter(highest))}")
                assert one.status_code == 200, one.text
                reads += 2

    def run_guarded(work: object) -> None:
        try:
            work()  # type: ignore[operator]
        except BaseException as error:  # noqa: BLE001 - raised at the end
            failures.append(error)
            stop.set()

    threads = [threading.Thread(target=run_guarded, args=(work,)) for work in (submit, read)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    try:
        for _ in range(ROUNDS):
            result = setup.outcome(setup.builtin("rebuild"))
            compared = same_view(result)
            print(f"rebuilt and switched, {compared} jobs compared, in {result['took']:.1f} s", flush=True)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures, failures
    print(f"meanwhile {submitted / (time.monotonic() - started):.0f} jobs/s arrived, {reads} reads were answered")
    setup.wait_done()
    print(setup.check())


def database_lost(setup: Setup) -> None:
    """Stop everything, empty the database, start everything again, and let the tape be folded."""
    before = all_jobs(setup.store)
    setup.end()
    empty(setup.made.environment["DATABASE_URL"])
    started = time.monotonic()
    setup.start()
    setup.wait_done()
    took = time.monotonic() - started
    report = setup.check()
    print(
        f"folded from the tape alone in {took:.1f} s, starts of the parts included, {report.events / took:.0f} events/s"
    )
    assert all_jobs(setup.store) == before
    print(report)


def empty(url: str) -> None:
    """Remove all data of the database."""
    if url.startswith("sqlite"):
        path = Path(urlsplit(url).path)
        for each in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
            each.unlink(missing_ok=True)
        return
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
