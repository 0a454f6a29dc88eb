"""``jobtape export``: the tape, as far as the view has kept it, into a file.

The history is read page by page, and retention may remove a job with all of its history between two of them. Half a
job would be one that never ended, so what was let go meanwhile is left out in the end, as if it had gone before.
"""

import gzip
import os
import sys
from collections.abc import Collection
from contextlib import closing, suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

from pydantic import ValidationError

from jobtape.cli import log_output as logs
from jobtape.cli.errors import CannotStart, WrongUse
from jobtape.cli.parts.start import configuring, settings_with
from jobtape.cli.tape.progress_bar import bar
from jobtape.cli.times import place_of
from jobtape.schemas import plainjson
from jobtape.schemas.replay_order import TapeRange
from jobtape.schemas.tape_file import TapeHeader, end_line, entry_line, header_line
from jobtape.view.store import Store

SLACK: Final = 300.0
"""Seconds: a removal that was under way when the export began may say an earlier time than it was committed at."""


def run_export(path: Path, *, since: str, until: str | None) -> int:
    """Write the file, whole or not at all. Returns the exit code; raises JobtapeError."""
    settings = settings_with()
    logs.configure("export", settings.log_level)
    if path.exists():
        raise CannotStart(f"{path} is there already: name a file that is not")
    with configuring():
        store = Store(settings.database_url)
    with closing(store):
        after, until_cursor = _stretch(store, since, until)
        header = TapeHeader(id=str(uuid4()), namespace=settings.namespace, after=after, until=until_cursor)
        events = export(store, path, header)
    print(f"{events} events in {path}, up to the cursor {until_cursor}", file=sys.stderr)
    return 0


def export(store: Store, path: Path, header: TapeHeader) -> int:
    """Write ``path``, whole or not at all; how many events. Raises CannotStart and ViewUnavailable."""
    all_of_it, part = (path.with_name(f"{path.name}.{name}-{os.getpid()}") for name in ("all", "part"))
    try:
        began = store.open_jobs.moment()
        with gzip.open(all_of_it, "wb", compresslevel=6) as file:
            events = _write(store, file, header)
        let_go = store.retention.removed_since(began.now - SLACK) if began is not None else ()
        if let_go:
            with gzip.open(all_of_it, "rb") as source, gzip.open(part, "wb", compresslevel=6) as file:
                events = _leave_out(let_go, source, file)
            part.rename(path)
        else:
            all_of_it.rename(path)
    except OSError as error:
        raise CannotStart(f"cannot write {path}: {error}") from None
    finally:
        for left in (all_of_it, part):
            with suppress(OSError):
                left.unlink(missing_ok=True)
    return events


def _stretch(store: Store, since: str, until: str | None) -> tuple[int, int]:
    try:
        wanted = TapeRange.model_validate({"since": place_of("--since", since), "until": place_of("--until", until)})
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        raise WrongUse(f"--{fault['loc'][0]}: {fault['msg']}: give an RFC 3339 time or a cursor") from None
    return wanted.cursors(store.committed.before, store.committed.reach().head)


def _write(store: Store, file: gzip.GzipFile, header: TapeHeader) -> int:
    file.write(header_line(header))
    cursor, events = header.after, 0
    begin = None
    with bar() as progress:
        task = progress.add_task("exporting", total=1.0)
        while rows := [row for row in store.rebuilds.archive(cursor) if row.cursor <= header.until]:
            file.writelines(entry_line(row.cursor, row.body) for row in rows)
            cursor, events = rows[-1].cursor, events + len(rows)
            # Not from ``after``: that may be 0, and cursors begin far above it.
            begin = rows[0].cursor - 1 if begin is None else begin
            progress.update(task, completed=share(begin, cursor, header.until))
    file.write(end_line(events))
    return events


def _leave_out(let_go: Collection[str], source: gzip.GzipFile, file: gzip.GzipFile) -> int:
    """What is in ``source`` without these jobs; how many events."""
    events = 0
    file.write(next(source))
    for line in source:
        match plainjson.loads(line):
            case {"end": True}:
                file.write(end_line(events))
            case {"event": {"subject": job_id}} if job_id in let_go:
                pass
            case _:
                file.write(line)
                events += 1
    return events


def share(begin: int, cursor: int, end: int) -> float:
    """How much of the stretch behind ``begin`` up to and with ``end`` is done at ``cursor``: from 0 to 1."""
    return (cursor - begin) / max(1, end - begin)
