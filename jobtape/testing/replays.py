"""Runs the jobs of an exported tape with today's handlers, and compares: a shadow run as a test."""

import gzip
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jobtape.consumer.outcome import timed_out
from jobtape.consumer.replays.outcome_kinds import Change, changes
from jobtape.consumer.replays.shadow import run_in_shadow
from jobtape.jobs import JobType
from jobtape.schemas import plainjson
from jobtape.schemas.errors import UnreadableEvent
from jobtape.schemas.events import JobEvent, decode
from jobtape.schemas.fold import fold
from jobtape.schemas.job import Job, JobState
from jobtape.schemas.messages.tape_file import TapeFileInvalid, read_header, read_lines

SHOWN: Final = 20
"""Kinds of differences that the error names."""
SHORT: Final = 200
"""Bytes of a value that it shows."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What was run. ``jobs``: how many. ``by_type``: how many of each type."""

    jobs: int
    by_type: dict[str, int]


def replay_tape(path: str | Path, /, types: Iterable[JobType[Any]], *, limit: int = 1000) -> Replayed:
    """Run the jobs of ``types`` on a tape that ``jobtape export`` wrote, the newest first and at most ``limit``.

    Each handler gets a payload of the past, with ``ctx.shadow`` set, and its outcome is compared with the recorded one.
    Nothing is published. Raises AssertionError, with the differences by kind, if an outcome is another one, and if the
    tape has no job of these types that has ended. Raises TapeFileInvalid for another file.
    """
    job_types = {each.name: each for each in types}
    ended = (JobState.SUCCEEDED, JobState.FAILED)
    past = [job for job in _jobs(Path(path)) if job.type in job_types and job.state in ended and job.submitted_at]
    past = sorted(past, key=lambda job: job.id, reverse=True)[:limit]
    if not past:
        raise AssertionError(
            f"{path} has no job of the types {', '.join(sorted(job_types)) or '(none given)'} that has ended: nothing "
            "was compared. Name the types with types=[...], or export a longer part of the tape"
        )
    different: dict[tuple[str, str, str, str], list[tuple[Job, Change]]] = {}
    for job in past:
        job_type = job_types[job.type]
        outcome = run_in_shadow(job_type, job, job_type.timeout) or timed_out(job_type, job_type.timeout)
        for change in changes(job, outcome):
            different.setdefault((job.type, change.path, change.then, change.now), []).append((job, change))
    if different:
        lines = [_line(kind, found) for kind, found in list(different.items())[:SHOWN]]
        jobs = {job.id for found in different.values() for job, _ in found}
        raise AssertionError("\n".join([f"{len(jobs)} of {len(past)} jobs end otherwise than on the tape:", *lines]))
    return Replayed(len(past), dict(Counter(job.type for job in past)))


def _line(kind: tuple[str, str, str, str], found: list[tuple[Job, Change]]) -> str:
    name, path, then, now = kind
    job, change = found[0]
    values = {which: plainjson.short(value, SHORT) for which, value in change.values.items()}
    where = f" {path}" if path else ""
    return f"  {name}{where}: {then} → {now}, {len(found)} jobs, for example {job.id} with {job.payload}: {values}"


def _jobs(path: Path) -> list[Job]:
    """Return the jobs whose events are in the file."""

    def events() -> Iterator[tuple[JobEvent, int]]:
        with gzip.open(path, "rb") as file:
            lines = iter(file)
            read_header(next(lines, b""))
            for line in read_lines(lines):
                try:
                    yield decode(line.body), line.number
                except UnreadableEvent:  # as on the tape: it is in no job
                    continue

    try:
        return list(fold(events()).values())
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TapeFileInvalid(f"{path} cannot be read to its end ({error}): export it again") from None
