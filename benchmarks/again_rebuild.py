"""Rebuilds: under load, and from the tape alone."""

import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from benchmarks.again_rig import Scene, all_jobs, until
from jobtape.view.store import JobQuery

RATE = 200
ROUNDS = 3


def under_load(scene: Scene) -> None:
    """ROUNDS rebuilds while RATE jobs a second arrive."""
    stop = threading.Event()
    failures: list[BaseException] = []
    submitted = reads = 0

    def arrive() -> None:
        nonlocal submitted
        with scene.made.client() as client:
            due = time.monotonic()
            while not stop.is_set():
                items = [{"type": "double", "payload": {"n": scene.jobs + submitted + n}} for n in range(RATE // 10)]
                assert client.post("/jobs/batch", json=items).json()["accepted"] == len(items)
                submitted += len(items)
                due += 0.1
                stop.wait(max(0.0, due - time.monotonic()))

    def read() -> None:
        nonlocal reads
        highest: dict[str, int] = {}
        with scene.made.client() as client:
            while not stop.is_set():
                answer = client.get("/jobs", params={"limit": 200})
                assert answer.status_code == 200, answer.text
                for job in answer.json()["items"]:
                    assert job["cursor"] >= highest.get(job["id"], 0), f"{job['id']} went back"
                    highest[job["id"]] = job["cursor"]
                one = client.get(f"/jobs/{next(iter(highest))}")
                assert one.status_code == 200, one.text
                reads += 2

    def guarded(work: object) -> None:
        try:
            work()  # type: ignore[operator]
        except BaseException as error:  # noqa: BLE001 - told at the end
            failures.append(error)
            stop.set()

    threads = [threading.Thread(target=guarded, args=(work,)) for work in (arrive, read)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    try:
        for _ in range(ROUNDS):
            result = scene.outcome(scene.builtin("rebuild"))
            told = result["result"]
            assert (told["changed"], told["missing"], told["added"]) == (0, 0, 0), told
            print(f"rebuilt and switched, {told['compared']} jobs compared, in {result['took']:.1f} s", flush=True)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures, failures
    print(f"meanwhile {submitted / (time.monotonic() - began):.0f} jobs/s arrived, {reads} reads were answered")
    scene.wait_done()
    print(scene.check())


def database_lost(scene: Scene) -> None:
    """The projector ends, the database is emptied, a new projector folds the tape."""
    before = all_jobs(scene.store)
    scene.projector.stop()
    empty(scene.made.environment["DATABASE_URL"])
    began = time.monotonic()
    scene.projector = scene.made.start("projector")
    scene.made.wait_ready()
    until(lambda: len(scene.store.list_jobs(JobQuery(limit=1))) == 1, "the view is folded")
    scene.wait_done()
    print(f"folded from the tape alone in {time.monotonic() - began:.1f} s")
    assert all_jobs(scene.store) == before
    print(scene.check())


def empty(url: str) -> None:
    """Lose the database."""
    if url.startswith("sqlite"):
        path = Path(urlsplit(url).path)
        for each in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
            each.unlink(missing_ok=True)
        return
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
