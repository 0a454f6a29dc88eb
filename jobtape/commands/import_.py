"""``jobtape import``: the tape of a file onto the empty tape of this installation.

Every event is published once more, with its id and time, and marked; no work is placed by it, and nothing follows from
it. Where an import was interrupted, the marks in the view say at which line it goes on.
"""

import asyncio
import gzip
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Final
from uuid import uuid4
from zlib import error as ZlibError  # noqa: N812

from aiormq import spec
from rich.progress import Progress

from jobtape.broker.confirmed import PERSISTENT, ConfirmedChannel
from jobtape.broker.link import Link, reason_of
from jobtape.broker.publisher import Publisher
from jobtape.commands import logs
from jobtape.commands.bar import bar
from jobtape.commands.errors import CannotStart
from jobtape.commands.starting import configuring, settings_with
from jobtape.consumer.window import settle
from jobtape.schemas.errors import BrokerUnavailable, JobtapeError, ViewUnavailable
from jobtape.schemas.events import CONTENT_TYPE
from jobtape.schemas.tapefile import Header, Line, TapeFileInvalid, marked, read_header, read_lines
from jobtape.schemas.topology import Topology, event_key
from jobtape.view.store import Store

CONFIRM_LIMIT: Final = 15.0
WINDOW: Final = 500
"""Events in flight."""
SEEN: Final = 4 * WINDOW
"""Newest events in which an interrupted import is looked for."""
CATCH_UP: Final = 60.0
"""Seconds without progress until the projector is taken for dead."""
LOOK: Final = 0.1


def run_import(path: Path) -> int:
    """Import the file. Returns the exit code; raises JobtapeError."""
    settings = settings_with()
    logs.configure("import", settings.log_level)
    with configuring():
        store = Store(settings.database_url)
    with closing(store):
        header, events = _check(path)
        topology = settings.topology
        asyncio.run(_Import(settings.rabbitmq_url, topology, store, path, header, events).run())
    print(f"{events} events of {path} are on the tape and in the view", file=sys.stderr)
    return 0


def _check(path: Path) -> tuple[Header, int]:
    """Read the whole file once before anything is published. Raises TapeFileInvalid."""
    with bar() as progress:
        progress.add_task("checking", total=None)
        with _opened(path) as (header, lines):
            return header, sum(1 for _ in lines)


class _opened:  # noqa: N801 - used like a function
    """The header and the lines of a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = gzip.open(path, "rb")  # noqa: SIM115
        except OSError as error:
            raise CannotStart(f"cannot read {path}: {error}") from None

    def __enter__(self) -> tuple[Header, Iterator[Line]]:
        lines = self._lines()
        return read_header(next(lines, b"")), read_lines(lines)

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _lines(self) -> Iterator[bytes]:
        try:
            yield from self._file
        except (OSError, EOFError, ZlibError) as error:
            raise TapeFileInvalid(f"{self._path} cannot be read to its end ({error}): export it again") from None


class _Import:
    def __init__(self, url: str, topology: Topology, store: Store, path: Path, header: Header, events: int) -> None:
        self._link = Link(url, name=f"{topology.namespace} import")
        self._publisher = Publisher(self._link, topology)
        self._channel = ConfirmedChannel(self._link, topology.events.name)
        self._store = store
        self._path = path
        self._header = header
        self._events = events
        self._process = f"import-{uuid4().hex}"
        self._barriers = 0

    async def run(self) -> None:
        """Publish what is not on the tape yet, and wait until the view has it."""
        self._link.start()
        try:
            await self._passed()
            done = self._done()
            if done:
                print(f"going on at line {done + 1}", file=sys.stderr)
            with bar() as progress:
                await self._publish(done, progress)
                await self._passed()
        finally:
            await self._link.close()

    def _done(self) -> int:
        """The last line that is in the view. Raises JobtapeError when the view has something else."""
        newest = self._store.committed.newest(SEEN)
        marks = [mark for mark in map(_mark, newest) if mark is not None and mark[0] == self._header.id]
        if newest and not marks:
            raise JobtapeError(
                "this installation has jobs already, and a tape is imported into an empty one only: give it a "
                "JOBTAPE_NAMESPACE and a DATABASE_URL of its own"
            )
        lines = [line for _, line in marks]
        if lines != sorted(lines, reverse=True):
            raise JobtapeError("what was imported is not in the file's order: begin anew, in an empty installation")
        return max(lines, default=0)

    async def _publish(self, done: int, progress: Progress) -> None:
        task = progress.add_task("importing", total=self._events, completed=done)
        with _opened(self._path) as (_, lines):
            rest = islice(lines, done, None)
            while window := list(islice(rest, WINDOW)):
                await self._send(window)
                progress.update(task, completed=window[-1].number)

    async def _send(self, window: list[Line]) -> None:
        """In the order of the file, over one channel. None is sent twice: what failed may be on the tape."""
        outcomes = await settle([self._publish_one(line) for line in window], CONFIRM_LIMIT)
        for outcome in outcomes:
            if outcome is not None:
                raise BrokerUnavailable(
                    f"the import was interrupted ({reason_of(outcome)}): run it again, and it goes on where it was"
                )

    async def _publish_one(self, line: Line) -> None:
        kind = str(line.event.get("type", "")).rpartition(".")[2] if line.event is not None else "unreadable"
        properties = spec.Basic.Properties(
            content_type=CONTENT_TYPE, delivery_mode=PERSISTENT, message_id=f"{self._header.id}/{line.number}"
        )
        key = event_key(kind[:40], "imported")
        await self._channel.publish(marked(line, self._header.id), key, properties, mandatory=True)

    async def _passed(self) -> None:
        """Returns when the view has read everything that is on the tape by now."""
        self._barriers += 1
        await self._publisher.publish_barrier(self._process, self._barriers)
        head, since = -1, time.monotonic()
        while self._store.passed_barrier(self._process) < self._barriers:
            now = self._store.committed.reach().head
            if now != head:
                head, since = now, time.monotonic()
            if time.monotonic() - since > CATCH_UP:
                raise ViewUnavailable("the view does not read the tape: start `jobtape projector`, then import again")
            await asyncio.sleep(LOOK)


def _mark(event: dict[str, object]) -> tuple[str, int] | None:
    match event:
        case {"imported": str(key), "importline": int(line)}:
            return key, line
    return None
