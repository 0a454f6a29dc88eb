"""Exported, and imported into an empty installation: the same view without its cursors."""

import signal
import time
from uuid import uuid4

import anyio

from benchmarks.tape.rig import Scene, all_jobs, until
from jobtape.broker.declare import remove_namespace
from jobtape.schemas.topology import Topology
from jobtape.view.store import JobQuery, Store


def there_and_back(scene: Scene) -> None:
    """With an import that is killed in the middle and run again."""
    scene.submit_scheduled(100)
    path = scene.made.folder / f"{uuid4().hex}.ndjson.gz"
    began = time.monotonic()
    assert scene.run("export", str(path)).wait() == 0
    events = len(scene.store.history(limit=10_000_000))
    took = time.monotonic() - began
    print(f"exported {events} events in {took:.1f} s, {path.stat().st_size / events:.0f} bytes an event, compressed")
    other = Topology(f"bench-{uuid4().hex[:8]}").with_queues(["default"])
    database = f"sqlite:///{scene.made.folder / 'other.db'}"
    own = {"JOBTAPE_NAMESPACE": other.namespace, "DATABASE_URL": database}
    projector = scene.made.start("projector", **own)
    store = Store(database)
    try:
        until(lambda: started(store), "the other projector")
        importing = scene.run("import", str(path), **own)
        until(lambda: len(store.list_jobs(JobQuery(limit=2000))) == 2000, "a part is imported")
        importing.send_signal(signal.SIGKILL)
        importing.wait()
        began = time.monotonic()
        assert scene.run("import", str(path), **own).wait() == 0
        print(f"imported, after a kill, in {time.monotonic() - began:.1f} s")
        assert all_jobs(store) == all_jobs(scene.store)
        assert len(store.history(limit=10_000_000)) == events
    finally:
        store.close()
        projector.stop()
        anyio.run(remove_namespace, scene.made.environment["RABBITMQ_URL"], other)


def started(store: Store) -> bool:
    """Whether a projector is at work."""
    try:
        checkpoint = store.checkpoint()
    except Exception:  # noqa: BLE001 - no tables yet
        return False
    return checkpoint is not None and checkpoint.lease_left > 0
