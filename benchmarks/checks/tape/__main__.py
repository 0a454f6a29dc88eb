"""Rebuild, replay, shadow run, export and import of one installation, under load and with killed processes.

    .venv/bin/python -m benchmarks.checks.tape [--broker B] [--database D] [--jobs 10000] [--only NAME,…]

- ``rebuild``: several times while 200 jobs a second arrive. No read fails or goes back, and the new view equals the
  old one and the tape, field by field.
- ``kills``: the process that works on a rebuild, a replay and a shadow run is killed in the middle. Each continues and
  ends with the right result. The replay may repeat events that had no confirm.
- ``replay``: all events to a queue. Nothing is executed, and the tape does not grow.
- ``shadow``: the handlers have changed for one payload in ten. The run names exactly those jobs.
- ``lost``: the database is lost. The view is folded from the tape alone, and equals it.
- ``backup``: the tape is exported, and imported into an empty installation by an import that is killed and repeated.
  The view is the same except for cursors.

Rates are printed. Exits 0 only if everything held.
"""

import signal
import sys
import time
from collections.abc import Callable
from uuid import uuid4

import anyio

from benchmarks.checks.tape import rebuild, replay_and_shadow
from benchmarks.checks.tape.setup import Setup, all_jobs
from benchmarks.rig.installation import installation, options, until
from jobtape.broker.declare import remove_namespace
from jobtape.schemas.topology import Topology
from jobtape.view.store import JobQuery, Store


def backup(setup: Setup) -> None:
    """Export, and import into another installation; the import is killed in the middle and run again."""
    setup.submit_scheduled(100)
    path = setup.made.folder / f"{uuid4().hex}.ndjson.gz"
    started = time.monotonic()
    assert setup.run("export", str(path)).wait() == 0
    events = len(setup.store.history(limit=10_000_000))
    took = time.monotonic() - started
    print(f"exported {events} events in {took:.1f} s, {path.stat().st_size / events:.0f} bytes an event, compressed")
    other = Topology(f"bench-{uuid4().hex[:8]}").with_queues(["default"])
    database = f"sqlite:///{setup.made.folder / 'other.db'}"
    own = {"JOBTAPE_NAMESPACE": other.namespace, "DATABASE_URL": database}
    projector = setup.made.start("projector", **own)
    store = Store(database)
    try:
        until(lambda: _has_projector(store), "the other projector is active")
        importing = setup.run("import", str(path), **own)
        until(lambda: len(store.list_jobs(JobQuery(limit=2000))) == 2000, "2,000 jobs are imported")
        importing.send_signal(signal.SIGKILL)
        importing.wait()
        started = time.monotonic()
        assert setup.run("import", str(path), **own).wait() == 0
        print(f"imported, after a kill, in {time.monotonic() - started:.1f} s")
        assert all_jobs(store) == all_jobs(setup.store)
        assert len(store.history(limit=10_000_000)) == events
    finally:
        store.close()
        projector.stop()
        anyio.run(remove_namespace, setup.made.environment["RABBITMQ_URL"], other)


def _has_projector(store: Store) -> bool:
    try:
        checkpoint = store.checkpoint()
    except Exception:  # noqa: BLE001 - there are no tables yet
        return False
    return checkpoint is not None and checkpoint.lease_left > 0


STEPS: dict[str, Callable[[Setup], None]] = {
    "rebuild": rebuild.under_load,
    "kills": replay_and_shadow.kills,
    "replay": replay_and_shadow.replay,
    "shadow": replay_and_shadow.shadow,
    "lost": rebuild.database_lost,
    "backup": backup,
}


def main() -> int:
    """Run the steps, and return the exit status."""
    parser = options(__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--only", default=",".join(STEPS))
    wanted = parser.parse_args()
    with installation(wanted) as (_, made):
        setup = Setup(made, wanted.jobs)
        try:
            setup.begin()
            for name in wanted.only.split(","):
                started = time.monotonic()
                STEPS[name](setup)
                print(f"{name}: held, in {time.monotonic() - started:.1f} s", flush=True)
        finally:
            setup.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
