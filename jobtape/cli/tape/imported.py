"""How much of a tape's file is in the view already, from its first line on, and whether that is all there is of it.

What was folded is there as it was read from the tape. So it is compared with what the file's lines look like on a tape,
byte by byte and in their order, those that are no events too: a line that is missing in between shows.
"""

from collections.abc import Iterable, Iterator

from jobtape.schemas import plainjson
from jobtape.schemas.errors import JobtapeError
from jobtape.schemas.tape_file import TapeLine, marked
from jobtape.view.store import Archived, Store

START_OVER = "start over in an empty installation (JOBTAPE_NAMESPACE and DATABASE_URL of its own)"


def lines_in_view(store: Store, export: str, lines: Iterable[TapeLine]) -> int:
    """How many of ``lines``, those of the file ``export``, are in the view. What else came after the first of them is
    passed over.

    Raises JobtapeError when the view had something before, or has a later line without one before it.
    """
    left = iter(lines)
    line, done = next(left, None), 0
    for entry in _archive(store):
        if line is not None and entry.body == marked(line, export):
            done = line.number
            line = next(left, None)
        elif _is_of(export, entry.body):
            why = "the line is missing, or not in its place"
            if store.committed.reach().horizon:
                why = "JOBTAPE_JOB_RETENTION has let go of old jobs meanwhile: set it to 0 until the import has ended"
            raise JobtapeError(f"what was imported agrees with the file up to line {done} only ({why}): {START_OVER}")
        elif not done:
            raise JobtapeError(
                "this installation has jobs already, and a tape is imported into an empty one only: give it a "
                "JOBTAPE_NAMESPACE and a DATABASE_URL of its own"
            )
    return done


def _archive(store: Store) -> Iterator[Archived]:
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
