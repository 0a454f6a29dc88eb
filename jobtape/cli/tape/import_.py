"""``jobtape import``: publishes the events of a file on the empty tape of this installation.

Each event keeps its id and time and is marked as imported: no job runs, and nothing follows from it. An import that was
interrupted continues at the first line that the view does not have. At the end the view is compared with the file.
"""

import asyncio
import gzip
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Final
from zlib import error as ZlibError  # noqa: N812

from aiormq import spec
from rich.progress import Progress

from jobtape.broker.channels import PERSISTENT
from jobtape.broker.confirmed_channel import ConfirmedChannel, publish_all
from jobtape.broker.link import Link, reason_of
from jobtape.broker.publisher import Publisher
from jobtape.cli import log_output as logs
from jobtape.cli.errors import OK, CannotStart
from jobtape.cli.parts.start import opened_view, settings_with
from jobtape.cli.printing import print_json, progress_bar
from jobtape.producer.service.barrier import Barrier
from jobtape.schemas import plainjson
from jobtape.schemas.errors import BrokerUnavailable, JobtapeError, ViewUnavailable
from jobtape.schemas.events import CONTENT_TYPE
from jobtape.schemas.messages.tape_file import TapeFileInvalid, TapeHeader, TapeLine, marked, read_header, read_lines
from jobtape.schemas.topology import EVENT_KEY, Topology
from jobtape.view.store import RawMessage, Store

START_OVER = "start again in an empty installation, with a new JOBTAPE_NAMESPACE and DATABASE_URL"
CONFIRM_TIMEOUT: Final = 15.0
"""Seconds that the broker may take to confirm an event."""
WINDOW: Final = 500
"""The largest number of events that are published and not yet confirmed."""
WINDOW_BYTES: Final = 8 * 2**20
"""Their size, about: an event may have more than 1 MiB, and is in memory several times."""
CATCH_UP: Final = 60.0
"""Seconds without progress after which the projector counts as stopped."""
PROGRESS_CHECK: Final = 1.0
"""Seconds between two checks of the progress."""


def lines_in_view(store: Store, export: str, lines: Iterable[TapeLine]) -> int:
    """Return how many of ``lines``, which are those of the file ``export``, are in the view.

    Other events after the first imported one are ignored. Raises JobtapeError when the view had events before the
    import, or when it has a line without all lines before it.
    """
    remaining = iter(lines)
    line, done = next(remaining, None), 0
    for entry in _archive(store):
        if line is not None and entry.body == marked(line, export):
            done = line.number
            line = next(remaining, None)
        elif _is_of(export, entry.body):
            why = "the next line is missing, or in another position"
            if store.committed.reach().horizon:
                why = "JOBTAPE_JOB_RETENTION has removed jobs meanwhile: set it to 0 until the import has ended"
            raise JobtapeError(f"the imported events agree with the file up to line {done} only ({why}): {START_OVER}")
        elif not done:
            raise JobtapeError(
                "this installation has jobs already, and a tape can be imported only into an empty one: use a new "
                "JOBTAPE_NAMESPACE and DATABASE_URL"
            )
    return done


def _archive(store: Store) -> Iterator[RawMessage]:
    cursor = 0
    while entries := store.rebuilds.archive(cursor):
        yield from entries
        cursor = entries[-1].cursor


def _is_of(export: str, body: bytes) -> bool:
    try:
        event = plainjson.loads(body)
    except plainjson.NotJson:
        return False
    return isinstance(event, dict) and event.get("imported") == export


def run_import(path: Path, *, as_json: bool = False) -> int:
    """Import the file. Returns the exit code; raises JobtapeError."""
    settings = settings_with()
    logs.configure("import", settings.log_level, settings.log_format)
    with opened_view(settings) as store:
        header, events = _check(path)
        topology = settings.topology
        asyncio.run(_Import(settings.rabbitmq_url, topology, store, path, header, events).run())
    if as_json:
        print_json({"file": str(path), "events": events})
    else:
        print(f"{events} events of {path} are on the tape and in the view", file=sys.stderr)
    return OK


def _check(path: Path) -> tuple[TapeHeader, int]:
    """Read the whole file before anything is published; return header and number of events. Raises TapeFileInvalid."""
    with progress_bar() as progress:
        progress.add_task("checking", total=None)
        with _opened(path) as (header, lines):
            return header, sum(1 for _ in lines)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[TapeHeader, Iterator[TapeLine]]]:
    """Give the header and the lines of a file. Raises CannotStart and TapeFileInvalid."""
    try:
        file = gzip.open(path, "rb")  # noqa: SIM115  # closed below
    except OSError as error:
        raise CannotStart(f"cannot read {path}: {error}") from None

    def contents() -> Iterator[bytes]:
        try:
            yield from file
        except (OSError, EOFError, ZlibError) as error:
            raise TapeFileInvalid(f"{path} cannot be read to its end ({error}): export it again") from None

    with file:
        lines = contents()
        yield read_header(next(lines, b"")), read_lines(lines)


class _Import:
    def __init__(self, url: str, topology: Topology, store: Store, path: Path, header: TapeHeader, events: int) -> None:
        self._link = Link(url, name=f"{topology.namespace} import")
        self._publisher = Publisher(self._link, topology)
        self._channel = ConfirmedChannel(self._link, topology.events.name)
        self._store = store
        self._path = path
        self._header = header
        self._events = events
        self._barrier = Barrier(
            "import", self._publisher.publish_barrier, lambda process: asyncio.to_thread(store.passed_barrier, process)
        )

    async def run(self) -> None:
        """Publish the lines that are not on the tape yet, and wait until the view has them."""
        self._link.start()
        try:
            await self._wait_for_view()
            horizon = self._store.committed.reach().horizon
            with progress_bar() as progress:
                done = self._lines_done(progress)
                if done:
                    print(f"continuing at line {done + 1}", file=sys.stderr)
                if done < self._events:
                    await self._publish(done, progress)
                    await self._wait_for_view()
                    self._check_result(progress, horizon)
        finally:
            await self._link.close()

    def _lines_done(self, progress: Progress) -> int:
        task = progress.add_task("comparing", total=None)
        with _opened(self._path) as (_, lines):
            done = lines_in_view(self._store, self._header.id, lines)
        progress.remove_task(task)
        return done

    def _check_result(self, progress: Progress, horizon: int) -> None:
        if self._store.committed.reach().horizon != horizon:
            print("jobs were removed meanwhile (JOBTAPE_JOB_RETENTION), so the view is not compared", file=sys.stderr)
        elif (done := self._lines_done(progress)) != self._events:
            raise JobtapeError(f"{done} of {self._events} events are in the view: {START_OVER}")

    async def _publish(self, done: int, progress: Progress) -> None:
        task = progress.add_task("importing", total=self._events, completed=done)
        with _opened(self._path) as (_, lines):
            for window in _windows(islice(lines, done, None)):
                await self._send(window)
                progress.update(task, completed=window[-1].number)

    async def _send(self, window: list[TapeLine]) -> None:
        """Publish in the order of the file, over one channel. Nothing is repeated: an event that failed may be on the
        tape.
        """
        outcomes = await publish_all([self._publish_one(line) for line in window], CONFIRM_TIMEOUT)
        for outcome in outcomes:
            if outcome is not None:
                raise BrokerUnavailable(
                    f"the import was interrupted ({reason_of(outcome)}): run it again, and it continues"
                )

    async def _publish_one(self, line: TapeLine) -> None:
        properties = spec.Basic.Properties(
            content_type=CONTENT_TYPE, delivery_mode=PERSISTENT, message_id=f"{self._header.id}/{line.number}"
        )
        await self._channel.publish(marked(line, self._header.id), EVENT_KEY, properties, mandatory=True)

    async def _wait_for_view(self) -> None:
        """Return when the view has read everything that is on the tape now. Raises ViewUnavailable."""
        await self._barrier.publish(self._publisher.timeout)
        head, since = -1, time.monotonic()
        while not await self._barrier.wait(PROGRESS_CHECK):
            now = self._store.committed.reach().head
            if now != head:
                head, since = now, time.monotonic()
            if time.monotonic() - since > CATCH_UP:
                raise ViewUnavailable("no projector reads the tape: start `jobtape projector`, then import again")


def _windows(lines: Iterable[TapeLine]) -> Iterator[list[TapeLine]]:
    """Yield the lines in their order, as many at a time as WINDOW and WINDOW_BYTES allow."""
    window: list[TapeLine] = []
    size = 0
    for line in lines:
        window.append(line)
        size += len(line.body)
        if len(window) == WINDOW or size >= WINDOW_BYTES:
            yield window
            window, size = [], 0
    if window:
        yield window
