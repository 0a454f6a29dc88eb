"""Kills the node of a RabbitMQ cluster that all parts use, under load, and measures how long each part pauses.

    .venv/bin/python -m benchmarks.checks.faults.failover [--seconds 8] [--machine] [--net-setuptime 1]

Three nodes of RabbitMQ 4.0 under Docker. All parts connect to the first one, which also leads the queues. Beside the
parts, a probe on the second node publishes to a work queue and to a stream of its own, which the first node leads as
well: its pause is that of the broker alone. Every accepted job must succeed, and a subscriber must get its event.
The node's process gets SIGKILL; with ``--machine`` its whole container does, so that its address does not answer any
more, as when a machine is lost. Then the others wait for it for ``net_setuptime``, 7 s by default, before they choose
a new leader of a stream.

Exits 0 only if no job or event was lost, no part was left on the dead node, and no pause was longer than 5 s, or than
the broker's own and 2 s.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import aio_pika
import httpx
from pamqp.common import FieldValue

from benchmarks.rig.installation import JOBS, Installation
from benchmarks.rig.load import paced
from jobtape.schemas.errors import JobtapeError
from jobtape.schemas.topology import Topology
from jobtape.settings import read_settings
from jobtape.subscribing import subscribe
from jobtape.view.store import Store
from tests.ledger import Ledger
from tools.brokers.amqp import UnreachableError, probe
from tools.brokers.container import ARGUMENTS, IMAGE
from tools.brokers.docker import DockerError, docker, ensure_image, remove_container
from tools.processes.ports import free_port

START_TIMEOUT = 120.0
END_TIMEOUT = 120.0
CLIENTS = 4
PAUSE = 0.02
"""Seconds between two requests of a client."""
AFTER = 12.0
"""Seconds for which the load continues after the kill, beside those of ``--seconds``."""
LONGEST = 5.0
"""Seconds that a part may pause."""
BEHIND_BROKER = 2.0
"""Seconds that a part may pause longer than the broker alone, if that pauses long itself."""
START = "{} rabbitmq-server & exec sleep infinity"
"""What a container runs, after the program of its image that starts servers. It outlives its server."""
KILL = 'for each in /proc/[0-9]*; do read n < $each/comm; [ "$n" = beam.smp ] && kill -9 ${each#/proc/}; done; true'
LOGGED = ("lost", "again", "taking jobs", "folding", "interrupted")


class Cluster:
    """Three nodes. Ports are those of 127.0.0.1."""

    def __init__(self, *, machine: bool, setuptime: int | None) -> None:
        self._machine = machine
        self._arguments = ARGUMENTS if setuptime is None else f"{ARGUMENTS} -kernel net_setuptime {setuptime}"
        self.name = f"jobtape-bench-{uuid4().hex[:8]}"
        self.nodes = [f"{self.name}-{n}" for n in range(3)]
        self.ports = [free_port() for _ in self.nodes]

    @property
    def url(self) -> str:
        """The URL with all hosts."""
        return f"amqp://guest:guest@{','.join(f'127.0.0.1:{port}' for port in self.ports)}/"

    def node_url(self, n: int) -> str:
        """Return the URL of one node."""
        return f"amqp://guest:guest@127.0.0.1:{self.ports[n]}/"

    def start(self) -> None:
        """Start the nodes and join them. Raises DockerError or UnreachableError."""
        ensure_image(IMAGE)
        docker("network", "create", self.name)
        entrypoint = docker("image", "inspect", IMAGE, "--format", "{{index .Config.Entrypoint 0}}").strip()
        for node, port in zip(self.nodes, self.ports, strict=True):
            options = [
                "--name",
                node,
                "--hostname",
                node,
                "--network",
                self.name,
                "--publish",
                f"127.0.0.1:{port}:5672",
            ]
            options += ["--env", f"RABBITMQ_ERLANG_COOKIE={self.name}"]
            options += ["--env", f"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS={self._arguments}"]
            docker("run", "--detach", *options, "--entrypoint", "sh", IMAGE, "-c", START.format(entrypoint))
        for n in range(3):
            self._wait(n)
        for n in (1, 2):
            for command in (["stop_app"], ["join_cluster", f"rabbit@{self.nodes[0]}"], ["start_app"]):
                docker("exec", self.nodes[n], "rabbitmqctl", "--quiet", *command, timeout=START_TIMEOUT)
            self._wait(n)

    def kill(self) -> None:
        """Send SIGKILL to the first node, or to all of its container."""
        if self._machine:
            docker("kill", self.nodes[0])
        else:
            docker("exec", self.nodes[0], "sh", "-c", KILL)

    def remove(self) -> None:
        """Remove the nodes with their data, and their network."""
        for node in self.nodes:
            remove_container(node)
        with suppress(DockerError):
            docker("network", "rm", self.name)

    def _wait(self, n: int) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                probe(self.node_url(n), timeout=5.0)
                return
            except UnreachableError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)


class Timeline:
    """When something succeeded, in seconds of ``time.monotonic``."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def note(self) -> None:
        """Note a success, now."""
        self.times.append(time.monotonic())

    def pause(self, since: float, until: float = 0.0) -> float:
        """Return the longest time without a success that ended after ``since``, or has not ended at ``until``."""
        times = sorted(self.times)
        times.append(max([until, *times[-1:]]))
        return max((b - a for a, b in pairwise(times) if b > since), default=float("inf"))


class Load:
    """Clients that submit jobs one after the other until ``stop``."""

    def __init__(self, url: str) -> None:
        self.accepted: list[str] = []
        self.timeline = Timeline()
        self._url, self._stop = url, threading.Event()
        self._threads = [threading.Thread(target=self._submit) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop the clients, and wait for them."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _submit(self) -> None:
        with httpx.Client(base_url=self._url, trust_env=False, timeout=30) as client:
            while not self._stop.is_set():
                with suppress(httpx.TransportError):
                    answer = client.post("/jobs", json={"type": "add", "payload": {"x": 1, "y": 2}})
                    if answer.status_code == 202:
                        self.accepted.append(answer.json()["id"])
                        self.timeline.note()
                time.sleep(PAUSE)


class Probe:
    """Publishes to a queue that the first node leads, over the second node, until ``stop``."""

    def __init__(self, nodes: Cluster, kind: str, stop: threading.Event) -> None:
        self.timeline = Timeline()
        self._nodes, self._kind, self._stop = nodes, kind, stop
        self._thread = threading.Thread(target=lambda: asyncio.run(self._publish()))
        self._thread.start()

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join()

    async def _publish(self) -> None:
        name = f"probe-{self._kind}"
        arguments: dict[str, FieldValue] = {"x-queue-type": self._kind, "x-queue-leader-locator": "client-local"}
        async with await aio_pika.connect(self._nodes.node_url(0)) as first:
            await (await first.channel()).declare_queue(name, durable=True, arguments=arguments)
        async with await aio_pika.connect(self._nodes.node_url(1)) as second:
            channel = await second.channel()
            while not self._stop.is_set():
                with suppress(aio_pika.exceptions.DeliveryError):  # it has no leader now
                    await channel.default_exchange.publish(aio_pika.Message(b"x", delivery_mode=2), name)
                    self.timeline.note()
                await asyncio.sleep(PAUSE)


class ViewWatch:
    """Notes each time at which the projector has committed, until ``stop``."""

    def __init__(self, store: Store, stop: threading.Event) -> None:
        self.timeline = Timeline()
        self._store, self._stop = store, stop
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join()

    def _watch(self) -> None:
        last = None
        while not self._stop.wait(PAUSE):
            found = self._store.checkpoint()
            if found is not None and found.cursor != last:
                last = found.cursor
                self.timeline.note()


class Subscriber:
    """Receives ``succeeded`` events, by a subscription with or without a name, until ``close``."""

    def __init__(self, made: Installation, name: str | None) -> None:
        self.timeline = Timeline()
        self.jobs: set[str] = set()
        self.fault: BaseException | None = None
        known = read_settings(rabbitmq_url=made.environment["RABBITMQ_URL"], namespace=made.topology.namespace)
        self._subscription = subscribe(events="succeeded", name=name, settings=known)
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(self._receive())
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait(30)

    def close(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()

    def _run(self) -> None:
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._task)

    async def _receive(self) -> None:
        try:
            async with self._subscription as events:
                self._ready.set()
                async for event in events:
                    self.jobs.add(event.job_id)
                    self.timeline.note()
        except JobtapeError as error:
            self.fault = error


@contextmanager
def cluster(*, machine: bool, setuptime: int | None) -> Iterator[Cluster]:
    """Yield a running cluster, and remove it afterwards."""
    made = Cluster(machine=machine, setuptime=setuptime)
    try:
        made.start()
        yield made
    finally:
        made.remove()


@contextmanager
def installed(nodes: Cluster) -> Iterator[Installation]:
    """Yield an installation on the cluster whose parts are ready. Stops them afterwards."""
    topology = Topology(f"bench-{uuid4().hex[:8]}").with_queues(["default"])
    with tempfile.TemporaryDirectory(prefix="jobtape-bench-") as name:
        folder, port = Path(name), free_port()
        environment = {
            **os.environ,
            "RABBITMQ_URL": nodes.url,
            "DATABASE_URL": f"sqlite:///{folder / 'view.db'}",
            "JOBTAPE_NAMESPACE": topology.namespace,
            "JOBTAPE_JOBS": JOBS,
            "JOBTAPE_PORT": str(port),
        }
        made = Installation(f"http://127.0.0.1:{port}", topology, environment, folder)
        try:
            made.start("projector")
            made.start("api")
            made.start("worker", "--queues", "default")
            made.wait_ready()
            yield made
        finally:
            made.stop()


def main() -> int:
    """Run the measurement, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0, help="how long the load runs before and after the kill")
    parser.add_argument("--machine", action="store_true", help="also take its address away")
    parser.add_argument("--net-setuptime", type=int, metavar="SECONDS", help="what the nodes wait for a connection")
    wanted = parser.parse_args()
    with cluster(machine=wanted.machine, setuptime=wanted.net_setuptime) as nodes, installed(nodes) as made:
        return run(nodes, made, wanted.seconds)


def run(nodes: Cluster, made: Installation, seconds: float) -> int:
    """Kill the node under load, wait for all jobs, and print what was measured."""
    stop = threading.Event()
    store = made.store()
    probes = {kind: Probe(nodes, kind, stop) for kind in ("quorum", "stream")}
    watch = ViewWatch(store, stop)
    subscribers = {"subscriber": Subscriber(made, "failover"), "subscriber without a name": Subscriber(made, None)}
    load = Load(made.url)
    try:
        time.sleep(seconds)
        print(f"{os.getloadavg()[0]:.1f} processes want to run; {len(load.accepted)} jobs accepted", flush=True)
        killed, at = time.monotonic(), datetime.now(UTC)
        nodes.kill()
        print(f"killed the node within {time.monotonic() - killed:.1f} s, at {at:%H:%M:%S.%f}", flush=True)
        time.sleep(seconds + AFTER)
    finally:
        load.stop()
        ended = time.monotonic()
        unfinished = _unfinished(store, load.accepted)
        stop.set()
        for probe in probes.values():
            probe.join()
        watch.join()
    executed = Timeline()
    executed.times = [killed + (each - at).total_seconds() for each in _succeeded(store)]
    alone = {kind: each.timeline.pause(killed) for kind, each in probes.items()}
    pauses = {"API": load.timeline, "worker": executed, "projector": watch.timeline}
    pauses |= {name: each.timeline for name, each in subscribers.items()}
    print(f"the broker alone, over another node: {_shown(alone)}")
    paused = {name: each.pause(killed, ended) for name, each in pauses.items()}
    print(f"paused: {_shown(paused)}")
    for part in made.parts:
        print("\n".join(f"{part.name}: {line}" for line in part.output().splitlines() if _tells(line)))
    print(f"{len(load.accepted)} jobs accepted, {unfinished} of them did not succeed")
    deadline = time.monotonic() + END_TIMEOUT
    while (missed := len(set(load.accepted) - subscribers["subscriber"].jobs)) and time.monotonic() < deadline:
        time.sleep(PAUSE)
    print(f"{missed} events did not reach the subscriber")
    for subscriber in subscribers.values():
        print(f"a subscriber ended: {subscriber.fault}" if subscriber.fault else "a subscriber still receives")
        subscriber.close()
    store.close()
    stuck = [part.name for part in made.parts if "starts again: not confirmed" in part.output()]
    print(f"parts that still publish to the dead node: {stuck}")
    longest = max(LONGEST, max(alone.values()) + BEHIND_BROKER)
    return 0 if unfinished == missed == 0 and not stuck and max(paused.values()) <= longest else 1


def _shown(pauses: dict[str, float]) -> str:
    return ", ".join(f"{name} {each:.1f} s" for name, each in pauses.items())


def _succeeded(store: Store) -> list[datetime]:
    """Return when each execution has ended."""
    found: list[datetime] = []
    after = 0
    while rows := store.history(after=after):
        found += [row.time for row in rows if row.name == "succeeded"]
        after = rows[-1].cursor
    return found


def _tells(line: str) -> bool:
    return "GET /" not in line and any(text in line for text in LOGGED)


def _unfinished(store: Store, accepted: list[str]) -> int:
    """Wait until all accepted jobs are final, and return how many have not succeeded."""
    found = paced.wait_final(store, Ledger(ok=accepted), END_TIMEOUT)
    return len(accepted) - sum(job.state.value == "succeeded" for job in found)


if __name__ == "__main__":
    sys.exit(main())
