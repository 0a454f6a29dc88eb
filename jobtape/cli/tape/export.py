"""``jobtape export``: writes the part of the tape that the view has kept to a file.

The history is read page by page, and retention may remove a job with all its history between two pages. The file must
not contain half a job, which would look as if it had never ended. So the jobs that were removed during the export are
left out at the end.
"""

import gzip
import os
import sys
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

from pydantic import ValidationError

from jobtape.cli import log_output as logs
from jobtape.cli.errors import OK, CannotStart, WrongUse
from jobtape.cli.parts.start import opened_view, settings_with
from jobtape.cli.printing import print_json, progress_bar
from jobtape.cli.values import position_of
from jobtape.schemas import plainjson
from jobtape.schemas.errors import faults_of, first_fault
from jobtape.schemas.messages.replay_request import TapeRange
from jobtape.schemas.messages.tape_file import TapeHeader, end_line, entry_line, header_line
from jobtape.view.store import Store

SLACK: Final = 300.0
"""Seconds: a removal that was running when the export began may be recorded with an earlier time than its commit."""


def run_export(path: Path, *, since: str, until: str | None, as_json: bool = False) -> int:
    """Write the whole file, or nothing. Returns the exit code; raises JobtapeError."""
    settings = settings_with()
    logs.configure("export", settings.log_level, settings.log_format)
    if path.exists():
        raise CannotStart(f"{path} exists already: choose another name")
    with opened_view(settings) as store:
        after, until_cursor = _cursors(store, since, until)
        header = TapeHeader(id=str(uuid4()), namespace=settings.namespace, after=after, until=until_cursor)
        events = export(store, path, header)
    if as_json:
        print_json({"file": str(path), "events": events, "until": until_cursor})
    else:
        print(f"{events} events in {path}, up to the cursor {until_cursor}", file=sys.stderr)
    return OK


def export(store: Store, path: Path, header: TapeHeader) -> int:
    """Write the whole file or nothing, and return the number of events. Raises CannotStart and ViewUnavailable."""
    whole, part = (path.with_name(f"{path.name}.{name}-{os.getpid()}") for name in ("all", "part"))
    try:
        began = store.checkpoint()
        with gzip.open(whole, "wb", compresslevel=6) as file:
            events = _write(store, file, header)
        removed = store.retention.removed_since(began.read_at - SLACK) if began is not None else ()
        if removed:
            with gzip.open(whole, "rb") as source, gzip.open(part, "wb", compresslevel=6) as file:
                events = _copy_without(removed, source, file)
            part.rename(path)
        else:
            whole.rename(path)
    except OSError as error:
        raise CannotStart(f"cannot write {path}: {error}") from None
    finally:
        for temporary in (whole, part):
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    return events


def _cursors(store: Store, since: str, until: str | None) -> tuple[int, int]:
    try:
        wanted = TapeRange.model_validate(
            {"since": position_of("--since", since), "until": position_of("--until", until)}
        )
    except ValidationError as error:
        raise WrongUse(f"--{first_fault(faults_of(error))}: give an RFC 3339 time or a cursor") from None
    return wanted.cursors(store.committed.before, store.committed.reach().head)


def _write(store: Store, file: gzip.GzipFile, header: TapeHeader) -> int:
    file.write(header_line(header))
    cursor, events = header.after, 0
    begin = None
    with progress_bar() as progress:
        task = progress.add_task("exporting", total=1.0)
        while rows := [row for row in store.rebuilds.archive(cursor) if row.cursor <= header.until]:
            file.writelines(entry_line(row.cursor, row.body) for row in rows)
            cursor, events = rows[-1].cursor, events + len(rows)
            # Not from ``after``: that may be 0, and cursors begin far above it.
            begin = rows[0].cursor - 1 if begin is None else begin
            progress.update(task, completed=(cursor - begin) / max(1, header.until - begin))
    file.write(end_line(events))
    return events


def _copy_without(removed: Collection[str], source: gzip.GzipFile, file: gzip.GzipFile) -> int:
    """Copy the file without the events of these jobs, and return the number of events that are left."""
    events = 0
    file.write(next(source))
    for line in source:
        match plainjson.loads(line):
            case {"end": True}:
                file.write(end_line(events))
            case {"event": {"subject": job_id}} if job_id in removed:
                pass
            case _:
                file.write(line)
                events += 1
    return events
