"""An API as a process: at SIGTERM its streams end; a client that never reads loses its connection."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from jobtape.view.store import Store
from tests.cli.programs import COMMAND, Program
from tests.producer.running_api import api, without_broker
from tests.producer.sse_client import open_stream
from tests.view.samples import begin, job_id, record, submitted
from tests.waiting import eventually
from tools.processes.ports import free_port

pytestmark = pytest.mark.anyio

UVICORN = (sys.executable, "-m", "uvicorn", "--factory", "jobtape:create_app", "--port")


@asynccontextmanager
async def serving(
    command: Sequence[str], port: int, folder: Path, database_url: str, **variables: str
) -> AsyncIterator[Program]:
    """Run an API without a broker. Its grace period is longer than the test."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "DATABASE_"))}
    env |= {"RABBITMQ_URL": "amqp://127.0.0.1:1/", "DATABASE_URL": database_url, "JOBTAPE_JOBS": "tests.producer.jobs"}
    env |= {"JOBTAPE_APP_DIR": str(Path(__file__).parents[3]), "JOBTAPE_PORT": str(port), "JOBTAPE_GRACE_PERIOD": "300"}
    env |= variables
    program = Program(command, env, folder)
    try:
        async with httpx.AsyncClient(trust_env=False) as client:

            async def lives() -> bool:
                assert program.running(), program.lines
                try:
                    return (await client.get(f"http://127.0.0.1:{port}/health/live")).status_code == 200
                except httpx.TransportError:
                    return False

            await eventually(lives, 60, what="the API lives")
        yield program
    finally:
        if program.running():
            program.send(signal.SIGKILL)
        program.close()


@pytest.mark.parametrize(("by", "streams"), [("jobtape", 100), ("uvicorn", 20)])
async def test_streams_and_waits_end_at_sigterm(
    view: Store, sqlite_url: str, tmp_path: Path, by: str, streams: int
) -> None:
    begin(view)
    record(view, submitted(1))
    port = free_port()
    command = [*UVICORN, str(port)] if by == "uvicorn" else [*COMMAND, "api"]
    url = f"http://127.0.0.1:{port}"
    async with (
        serving(command, port, tmp_path, sqlite_url) as program,
        AsyncExitStack() as stack,
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client,
    ):
        received = [await stack.enter_async_context(open_stream(f"{url}/events")) for _ in range(streams)]
        for each in received:
            await each.next(control=True)
        waiting = asyncio.create_task(client.get(f"/jobs/{job_id(1)}", headers={"Prefer": "wait=60"}))
        again = await client.get(f"/jobs/{job_id(1)}", headers={"Prefer": "wait=1"})
        assert again.headers["preference-applied"] == "wait=1"
        program.send(signal.SIGTERM)
        assert not [block for each in received for block in await each.rest() if block.data]
        assert (await waiting).json()["state"] == "queued"
        # A client that keeps its connection open for the next request is not waited for either.
        code = await asyncio.to_thread(program.code)
        assert code in ((0, -signal.SIGTERM) if by == "uvicorn" else (0,)), program.lines


async def test_stream_after_sigterm_ends(view: Store, sqlite_url: str) -> None:
    """The signal has passed when it is opened, and the server would wait for it as long as it waits at all."""
    begin(view)
    record(view, submitted(1))
    stopping = asyncio.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    try:
        async with api(without_broker(sqlite_url), ready=False) as served:
            assert (await served.client.get(f"/jobs/{job_id(1)}")).status_code == 200
            signal.raise_signal(signal.SIGTERM)
            assert stopping.is_set(), "the server's own handler runs too"
            async with asyncio.timeout(20):
                assert (await served.client.get("/events")).status_code in (200, 503)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.skipif(
    not Path("/proc/self/fd").exists(),
    reason="Linux alone shows, in /proc/net/tcp, a connection that its process has let go",
)
async def test_connection_of_client_that_never_reads_is_closed(view: Store, sqlite_url: str, tmp_path: Path) -> None:
    """Its slot is freed, and its connection is closed although the server's buffers are not empty."""
    begin(view)
    record(view, *(submitted(n, payload={"text": "x" * 200_000}) for n in range(60)))
    port = free_port()
    async with serving([*COMMAND, "api"], port, tmp_path, sqlite_url, JOBTAPE_SEND_TIMEOUT="1"):
        with socket.socket() as silent:
            silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            silent.connect(("127.0.0.1", port))
            silent.sendall(b"GET /events?after=first HTTP/1.1\r\nHost: x\r\n\r\n")
            here = silent.getsockname()
            assert here in _peers(port)
            await eventually(lambda: here not in _peers(port), what="the connection is gone")


def _peers(port: int) -> set[tuple[str, int]]:
    """Return the addresses of the kernel's connections to the port."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, remote = (address.split(":") for address in line.split()[1:3])
        if int(local[1], 16) == port:
            found.add((socket.inet_ntoa(bytes.fromhex(remote[0])[::-1]), int(remote[1], 16)))
    return found
