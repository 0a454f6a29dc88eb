"""Folds a stretch of the tape, in memory, into what the view is to write."""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from jobtape.broker.stream_reader import TapeMessage
from jobtape.schemas.barrier import read_barrier
from jobtape.schemas.cursor import cursor_of
from jobtape.schemas.effects import Effect, effects_of, may_be_effect
from jobtape.schemas.errors import UnreadableEvent
from jobtape.schemas.events import JobEvent, decode, encode
from jobtape.schemas.fold import evolve
from jobtape.schemas.job import Job
from jobtape.schemas.topology import BARRIER_KEY
from jobtape.view.store import Archived, Batch, HistoryRow, OutboxRow, UnreadableRow

Known = Callable[[Collection[str]], dict[str, Job]]
Gone = Callable[[Collection[str]], Collection[str]]


def none_gone(_: Collection[str]) -> Collection[str]:
    """Nothing was ever let go."""
    return ()


def digest_of(message: TapeMessage) -> str:
    """What the checkpoint remembers of a message, to know it again: the SHA-256 of its body, in hex."""
    return hashlib.sha256(message.body).hexdigest()


def fold_batch(messages: Sequence[TapeMessage], epoch: int, known: Known, gone: Gone = none_gone) -> Batch:
    """What ``messages`` (at least one) change. ``known`` gives the jobs, by id, as they are in the view now, ``gone``
    those of the unknown ones that were in it once and were let go: their events change nothing and are not kept.

    A message that cannot be read is kept with its reason, and holds up nothing.
    """
    barriers: dict[str, int] = {}
    unreadable: list[UnreadableRow] = []
    rest: list[Archived] = []
    for message in messages:
        entry = Archived(cursor_of(epoch, message.offset), message.body)
        if message.key != BARRIER_KEY:
            rest.append(entry)
            continue
        try:
            process, seq = read_barrier(message.body)
            barriers[process] = max(seq, barriers.get(process, 0))
        except UnreadableEvent as error:
            unreadable.append(UnreadableRow(entry.cursor, str(error), entry.body))
    last = messages[-1]
    batch = fold_archived(rest, known, gone)
    return replace(
        batch,
        offset=last.offset,
        digest=digest_of(last),
        unreadable=[*unreadable, *batch.unreadable],
        barriers=barriers,
    )


def fold_archived(entries: Sequence[Archived], known: Known, gone: Gone = none_gone) -> Batch:
    """The same for what is no barrier, on its own; without the place that the batch ends at."""
    events: list[tuple[int, JobEvent, str]] = []
    unreadable: list[UnreadableRow] = []
    for entry in entries:
        try:
            events.append((entry.cursor, decode(entry.body), entry.body.decode()))
        except UnreadableEvent as error:
            unreadable.append(UnreadableRow(entry.cursor, str(error), entry.body))
        except Exception as error:  # noqa: BLE001 - a reader's bug must not stop the tape for all
            unreadable.append(UnreadableRow(entry.cursor, f"it could not be read: {error!r}"[:500], entry.body))

    ids = {event.subject for _, event, _ in events}
    before = known(ids)
    pruned = gone(ids - before.keys())
    jobs = dict(before)
    history: list[HistoryRow] = []
    counts: Counter[tuple[str, str]] = Counter()
    effects: dict[str, OutboxRow] = {}
    seen: set[str] = set()
    for cursor, event, text in events:
        if event.subject in pruned:
            continue
        job = jobs.get(event.subject)
        after = evolve(job, event, cursor)
        accepted = after is not job
        jobs[event.subject] = after
        counts[event.data.job_type, event.name] += accepted
        if may_be_effect(event):
            effects.pop(event.id, None)
            seen.add(event.id)
        effects |= {effect.event.id: outbox_row(effect) for effect in effects_of(job, event, after)}
        history.append(HistoryRow(cursor, event.subject, event.id, event.name, event.time, accepted, text, after))
    return Batch(
        offset=None,
        digest=None,
        jobs=[job for job_id, job in jobs.items() if job is not before.get(job_id)],
        history=history,
        unreadable=unreadable,
        counts={key: n for key, n in counts.items() if n},
        effects=tuple(effects.values()),
        seen=seen,
    )


def outbox_row(effect: Effect) -> OutboxRow:
    """An effect as the view keeps it until it is on the tape."""
    return OutboxRow(effect.event.id, encode(effect.event).decode(), effect.keys, wait=effect.wait)
