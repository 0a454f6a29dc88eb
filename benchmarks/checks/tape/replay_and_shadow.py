"""Replays and shadow runs, also killed in the middle."""

import time
from collections import Counter
from typing import Any
from uuid import uuid4

import pika

from benchmarks.checks.tape.setup import Setup, same_view
from benchmarks.rig.installation import until
from jobtape.consumer.replays.replay import PAGE
from jobtape.view.store import JobQuery

SHADOWED = 1000


def kills(setup: Setup) -> None:
    """Kill two rebuilds (one with the whole projector), a replay and a shadow run in the middle."""
    for source in ("archive", "stream"):
        job_id = setup.builtin("rebuild", source=source)
        setup.kill_working_process(job_id, 0.3)
        if source == "stream":
            setup.projector.kill()
            setup.projector = setup.made.start("projector")
        compared = same_view(setup.outcome(job_id))
        print(f"rebuild from the {source}, killed and continued: {compared} jobs compared", flush=True)
    with Queue(setup) as queue:
        events = expected(setup)
        killed(setup, setup.builtin("replay", queue=queue.name, rate=2000, until=max(events.values())), 0.3)
        received = queue.drain()
        assert set(received) == set(events), f"{len(set(events) - set(received))} missing"
        repeated = sum(received.values()) - len(received)
        assert repeated <= 2 * PAGE, repeated
        print(f"replay, killed and continued: {len(received)} events, {repeated} repeated")
    setup.made.environment["BENCH_BUG"] = "0"
    correct_handlers(setup)
    result = killed(setup, setup.builtin("shadow", type=["double"], limit=SHADOWED), 0.1)
    check_differences(setup, result["result"])


def killed(setup: Setup, job_id: str, after: float) -> dict[str, Any]:
    """Kill the process that runs the job, and return the job when it has succeeded."""
    setup.kill_working_process(job_id, after)
    return setup.outcome(job_id)


def replay(setup: Setup) -> None:
    """Replay all events to a queue."""
    before = setup.executions.read_text()
    setup.check()
    tape = len(list(setup.checker.events()))
    with Queue(setup) as queue:
        events = expected(setup)
        result = setup.outcome(setup.builtin("replay", queue=queue.name, until=max(events.values())))
        sent = result["result"]["events"]
        received = queue.drain()
        assert sent == len(events) == len(received) == sum(received.values()), (sent, len(events), len(received))
        print(f"replayed {sent} events in {result['took']:.1f} s, {sent / result['took']:.0f}/s")
    assert setup.executions.read_text() == before, "something was executed"
    setup.check()
    new = [event for event, _ in list(setup.checker.events())[tape:] if not event.data.job_type.startswith("jobtape.")]
    assert new == [], "the tape has grown"


def shadow(setup: Setup) -> None:
    """Run the newest SHADOWED jobs with corrected handlers."""
    correct_handlers(setup)
    before = setup.executions.read_text()
    result = setup.outcome(setup.builtin("shadow", type=["double"], limit=SHADOWED))
    check_differences(setup, result["result"])
    assert setup.executions.read_text() == before, "something was executed"
    print(f"{SHADOWED} jobs in {result['took']:.1f} s, {SHADOWED / result['took']:.0f}/s")


def correct_handlers(setup: Setup) -> None:
    """Start the projector, which runs shadow runs, with handlers that have no bug."""
    setup.projector.stop()
    setup.projector = setup.made.start("projector", BENCH_BUG="0")
    setup.made.wait_ready()


def check_differences(setup: Setup, found: dict[str, Any]) -> None:
    """Check that the run has named exactly the jobs with another result."""
    newest = setup.store.list_jobs(JobQuery(types=["double"], limit=SHADOWED))
    wrong = {job.id for job in newest if job.payload and job.payload["n"] % 10 == 0}
    assert set(found["different"]) == wrong, (len(found["different"]), len(wrong))
    print(f"shadow: {found['jobs']} jobs, {len(wrong)} different, exactly those with the bug")


def expected(setup: Setup) -> dict[str, int]:
    """Return the cursors of all accepted events, by id."""
    found: dict[str, int] = {}
    after = 0
    while rows := setup.store.history(after=after, limit=5000):
        after = rows[-1].cursor
        found |= {row.event_id: row.cursor for row in rows if row.accepted}
    return found


class Queue:
    """A queue to replay to, read with pika."""

    def __init__(self, setup: Setup) -> None:
        self.name = f"bench-{uuid4().hex}"
        self._url = setup.made.environment["RABBITMQ_URL"]

    def __enter__(self) -> "Queue":
        self._connection = pika.BlockingConnection(pika.URLParameters(self._url))
        self._channel = self._connection.channel()
        self._channel.queue_declare(self.name, durable=True)
        return self

    def __exit__(self, *_: object) -> None:
        # A new connection: the first one may be lost, because nobody sent its heartbeats.
        connection = pika.BlockingConnection(pika.URLParameters(self._url))
        connection.channel().queue_delete(self.name)
        connection.close()

    def drain(self) -> Counter[str]:
        """Empty the queue, and return how often each event was on it, by id."""
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
