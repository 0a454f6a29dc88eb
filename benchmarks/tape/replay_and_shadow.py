"""Replays and shadow runs, and all of them killed in the middle."""

import time
from collections import Counter
from typing import Any
from uuid import uuid4

import pika

from benchmarks.tape.rig import Scene, until
from jobtape.view.store import JobQuery

SHADOWED = 1000


def kills(scene: Scene) -> None:
    """Rebuilds, a replay and a shadow run, each killed once; one of them with the whole projector."""
    for source in ("archive", "stream"):
        job_id = scene.builtin("rebuild", source=source)
        scene.kill_working_process(job_id, 0.3)
        if source == "stream":
            scene.projector.kill()
            scene.projector = scene.made.start("projector")
        result = scene.outcome(job_id)
        delivered = result["result"]
        assert (delivered["changed"], delivered["missing"], delivered["added"]) == (0, 0, 0), delivered
        print(f"rebuild from the {source}, killed and gone on with: {delivered['compared']} jobs compared", flush=True)
    with Queue(scene) as queue:
        events = expected(scene)
        killed(scene, scene.builtin("replay", queue=queue.name, rate=2000, until=max(events.values())), 0.3)
        received = queue.drain()
        assert set(received) == set(events), f"{len(set(events) - set(received))} missing"
        repeated = sum(received.values()) - len(received)
        assert repeated <= 2 * 500, repeated
        print(f"replay, killed and gone on with: {len(received)} events, {repeated} repeated")
    scene.made.environment["BENCH_BUG"] = "0"
    fixed(scene)
    result = killed(scene, scene.builtin("shadow", type=["double"], limit=SHADOWED), 0.1)
    named(scene, result["result"])


def killed(scene: Scene, job_id: str, after: float) -> dict[str, Any]:
    """The job's end, after the process that ran it was killed."""
    scene.kill_working_process(job_id, after)
    return scene.outcome(job_id)


def replay(scene: Scene) -> None:
    """All events to a queue."""
    before = scene.executions.read_text()
    scene.check()
    tape = len(list(scene.checker.events()))
    with Queue(scene) as queue:
        events = expected(scene)
        result = scene.outcome(scene.builtin("replay", queue=queue.name, until=max(events.values())))
        sent = result["result"]["events"]
        received = queue.drain()
        assert sent == len(events) == len(received) == sum(received.values()), (sent, len(events), len(received))
        print(f"replayed {sent} events in {result['took']:.1f} s, {sent / result['took']:.0f}/s")
    assert scene.executions.read_text() == before, "something was executed"
    scene.check()
    grown = [
        event for event, _ in list(scene.checker.events())[tape:] if not event.data.job_type.startswith("jobtape.")
    ]
    assert grown == [], "the tape has grown"


def shadow(scene: Scene) -> None:
    """With the bug out, over the newest SHADOWED jobs."""
    fixed(scene)
    before = scene.executions.read_text()
    result = scene.outcome(scene.builtin("shadow", type=["double"], limit=SHADOWED))
    named(scene, result["result"])
    assert scene.executions.read_text() == before, "something was executed"
    print(f"{SHADOWED} jobs in {result['took']:.1f} s, {SHADOWED / result['took']:.0f}/s")


def fixed(scene: Scene) -> None:
    """Start the projector, which runs them, with handlers that have no bug."""
    scene.projector.stop()
    scene.projector = scene.made.start("projector", BENCH_BUG="0")
    scene.made.wait_ready()


def named(scene: Scene, delivered: dict[str, Any]) -> None:
    """Exactly those whose result changes."""
    newest = scene.store.list_jobs(JobQuery(types=["double"], limit=SHADOWED))
    wrong = {job.id for job in newest if job.payload and job.payload["n"] % 10 == 0}
    assert set(delivered["different"]) == wrong, (len(delivered["different"]), len(wrong))
    print(f"shadow: {delivered['jobs']} jobs, {len(wrong)} different, exactly those with the bug")


def expected(scene: Scene) -> dict[str, int]:
    """The accepted events that there are, by id, with their cursors."""
    found: dict[str, int] = {}
    after = 0
    while rows := scene.store.history(after=after, limit=5000):
        after = rows[-1].cursor
        found |= {row.event_id: row.cursor for row in rows if row.accepted}
    return found


class Queue:
    """A queue of somebody's own, read with pika."""

    def __init__(self, scene: Scene) -> None:
        self.name = f"bench-{uuid4().hex}"
        self._url = scene.made.environment["RABBITMQ_URL"]

    def __enter__(self) -> "Queue":
        self._connection = pika.BlockingConnection(pika.URLParameters(self._url))
        self._channel = self._connection.channel()
        self._channel.queue_declare(self.name, durable=True)
        return self

    def __exit__(self, *_: object) -> None:
        # A replay may have taken longer than the heartbeat, which nobody kept here.
        connection = pika.BlockingConnection(pika.URLParameters(self._url))
        connection.channel().queue_delete(self.name)
        connection.close()

    def drain(self) -> Counter[str]:
        """How often each event came, by id; the queue is empty then."""
        connection = pika.BlockingConnection(pika.URLParameters(self._url))
        channel = connection.channel()
        found: Counter[str] = Counter()

        def empty() -> bool:
            method, properties, _ = channel.basic_get(self.name, auto_ack=True)
            if method is None:
                return True
            assert "replayed" in properties.headers
            assert "CC" not in properties.headers
            found[properties.message_id] += 1
            return False

        deadline = time.monotonic() + 300
        while not empty():
            assert time.monotonic() < deadline
        until(empty, "the queue is empty", 5)
        connection.close()
        return found
