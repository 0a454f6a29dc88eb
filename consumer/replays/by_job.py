"""Folds the archive of a rebuild job by job, in several processes where there are cores.

Theory of operation. A page is a number of events, sorted by job. A fold process reads a page, folds it, and commits it.
The next one reads as soon as it is known where that page ends. So pages are folded at the same time. They are read and
committed one after the other, and the position in the database says up to where.

A fold process is a fresh interpreter: ``python -m jobtape.consumer.replays.by_job <descriptor>``. It
ends when the process that started it ends. With one core, or few events, it is a thread.
"""

import os
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, Final

from jobtape.consumer.folding import fold_messages
from jobtape.consumer.replays.long_task import TaskSlice
from jobtape.process import garbage
from jobtape.schemas.errors import JobtapeError, ViewUnavailable
from jobtape.schemas.job import Job
from jobtape.view.store import ByJob, FoldedBatch, RebuildState, Store

MOST_PROCESSES: Final = 4
WORTH_PROCESSES: Final = 50_000
"""Events from which on it is worth starting processes."""
LONGEST_PAUSE: Final = 0.05
"""Seconds between two transactions on SQLite, which has one writer and no queue for it: time for the projector."""


def fold_by_job(store: Store, rebuild: RebuildState, task_slice: TaskSlice) -> RebuildState | None:
    """Fold the archive up to the end of ``rebuild.by_job``, and return the rebuild, which then folds in order.

    Returns None when another process moved or ended the rebuild. Raises ViewUnavailable, and Interrupted when the slice
    is over.
    """
    assert rebuild.by_job is not None
    total = store.rebuilds.remaining(0)
    try:
        with _fold_processes(store, total - rebuild.by_job.events) as processes:
            moved = _fold_pages(processes, rebuild, task_slice, total)
    except (EOFError, ConnectionError):
        raise ViewUnavailable("a process that folds a part of the archive ended; the rebuild continues") from None
    return moved and store.rebuilds.commit_by_job(moved, FoldedBatch(offset=None, digest=None), None)


def pause_after(store: Store, seconds: float) -> float:
    """Return the seconds to leave the database to other writers after a transaction that took ``seconds``."""
    return min(LONGEST_PAUSE, seconds / 2) if store.dialect == "sqlite" else 0.0


def _fold_pages(
    processes: Sequence["Connection[Any, Any]"], rebuild: RebuildState, task_slice: TaskSlice, total: int
) -> RebuildState | None:
    """Fold all pages. One process reads at a time, and one commits at a time, in the order of the pages; the others
    fold. Return the rebuild as it is then, None if it is not the present rebuild any more.
    """
    idle = deque(processes)
    reading: Connection[Any, Any] | None = None
    folding: deque[Connection[Any, Any]] = deque()
    """Those that have a page, in the order of the pages."""
    committing = False
    position = rebuild.by_job
    moved, pause_until = rebuild, 0.0
    while True:
        if reading is None and position is not None and idle:
            reading = idle.popleft()
            reading.send(position)
        if folding and not committing:
            folding[0].send((moved, pause_until))
            committing = True
        busy = [*([] if reading is None else [reading]), *([folding[0]] if folding else [])]
        if not busy:
            return moved
        for process in wait(busy):
            assert isinstance(process, Connection)
            answer = _receive(process)
            if process is reading:
                position, reading = answer, None
                (idle if answer is None else folding).append(process)
                continue
            before = moved.by_job
            moved, pause_until = answer
            if moved is None:
                return None
            idle.append(folding.popleft())
            committing = False
            assert before is not None
            assert moved.by_job is not None
            done = moved.by_job.events
            in_earlier_slices = before.events - task_slice.done
            task_slice.add(done - before.events, max(0, total - done), in_earlier_slices)
            task_slice.check()


def _receive(process: "Connection[Any, Any]") -> Any:
    answer = process.recv()
    if isinstance(answer, BaseException):
        raise answer
    return answer


def cores() -> int:
    """Return how many processes can run at the same time."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _fold_processes(store: Store, events: int) -> Iterator[list["Connection[Any, Any]"]]:
    """Start as many fold processes as are worth it for that many events, and end them after the block."""
    with ExitStack() as stack:
        if cores() == 1 or events < WORTH_PROCESSES:
            yield [stack.enter_context(_thread(store))]
        else:
            yield [stack.enter_context(_process(store.url)) for _ in range(min(cores(), MOST_PROCESSES))]


@contextmanager
def _thread(store: Store) -> Iterator["Connection[Any, Any]"]:
    ours, theirs = Pipe()
    thread = threading.Thread(target=_fold_until_closed, args=(theirs, store), name="fold by job")
    thread.start()
    try:
        yield ours
    finally:
        ours.close()
        thread.join()


@contextmanager
def _process(url: str) -> Iterator["Connection[Any, Any]"]:
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-P", "-m", "jobtape.consumer.replays.by_job", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
        )
    try:
        with closing(Connection(ours.detach())) as connection:
            connection.send(url)  # not as an argument, which other users of the machine can read
            yield connection
    finally:
        process.kill()  # what it does now has no effect, or happens completely
        process.wait()


def main() -> None:
    """Fold pages for the process at the other end of the socket."""
    garbage.collect_rarely()
    connection: Connection[Any, Any] = Connection(int(sys.argv[1]))
    with closing(Store(connection.recv())) as store:
        _fold_until_closed(connection, store)


def _fold_until_closed(connection: "Connection[Any, Any]", store: Store) -> None:
    with connection, suppress(EOFError, OSError):
        while True:
            try:
                _fold_page(connection, store)
            except EOFError:
                raise
            except JobtapeError as error:
                connection.send(error)
            except Exception:  # noqa: BLE001 - raised again at the other end
                connection.send(RuntimeError(traceback.format_exc()))


def _fold_page(connection: "Connection[Any, Any]", store: Store) -> None:
    """Fold one page. Receive where it begins, answer where it ends, and fold it; then receive the rebuild after the
    page before, commit, and answer the rebuild after this page.

    With the rebuild goes the time, by ``time.monotonic``, before which no transaction may begin.
    """
    position: ByJob = connection.recv()
    entries = store.rebuilds.archive_by_job(position)
    if not entries:
        connection.send(None)
        return
    end = ByJob(position.end, entries[-1].job_id, entries[-1].cursor, position.events + len(entries))
    connection.send(end)
    # The events of one job may fill several pages.
    continued = entries[0].job_id == position.job_id
    batch = None if continued else fold_messages(entries, _no_jobs)
    rebuild, pause_until = connection.recv()
    if batch is None:
        batch = fold_messages(entries, lambda ids: store.rebuilds.known(rebuild, [position.job_id]))
    time.sleep(max(0.0, pause_until - time.monotonic()))
    started = time.monotonic()
    moved = store.rebuilds.commit_by_job(rebuild, batch, end)
    ended = time.monotonic()
    connection.send((moved, ended + pause_after(store, ended - started)))


def _no_jobs(_: object) -> dict[str, Job]:
    return {}


if __name__ == "__main__":
    main()
