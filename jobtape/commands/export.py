"""``jobtape export``: the tape, as far as the view has kept it, into a file."""

import gzip
import os
import sys
from contextlib import closing, suppress
from pathlib import Path
from uuid import uuid4

from pydantic import ValidationError

from jobtape.commands import logs
from jobtape.commands.bar import bar
from jobtape.commands.errors import CannotStart, WrongUse
from jobtape.commands.options import words
from jobtape.commands.starting import configuring, settings_with
from jobtape.schemas.replaying import Stretch
from jobtape.schemas.tapefile import Header, end_line, entry_line, header_line
from jobtape.view.store import Store


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
        part = path.with_name(f"{path.name}.part-{os.getpid()}")
        try:
            with gzip.open(part, "wb", compresslevel=6) as file:
                header = Header(id=str(uuid4()), namespace=settings.namespace, after=after, until=until_cursor)
                events = _write(store, file, header)
            part.rename(path)
        except OSError as error:
            raise CannotStart(f"cannot write {path}: {error}") from None
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)
    print(f"{events} events in {path}, up to the cursor {until_cursor}", file=sys.stderr)
    return 0


def _stretch(store: Store, since: str, until: str | None) -> tuple[int, int]:
    try:
        wanted = Stretch.model_validate({"since": words(since), "until": words(until)})
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        raise WrongUse(f"--{fault['loc'][0]}: {fault['msg']}: give an RFC 3339 time or a cursor") from None
    return wanted.cursors(store.committed.before, store.committed.reach().head)


def _write(store: Store, file: gzip.GzipFile, header: Header) -> int:
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
            progress.update(task, completed=(cursor - begin) / max(1, header.until - begin))
    file.write(end_line(events))
    return events
