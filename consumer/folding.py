"""Folds messages of the tape in memory into the changes that the view has to write."""

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from jobtape.broker.stream_reader import TapeMessage
from jobtape.schemas.cursor import cursor_of
from jobtape.schemas.errors import UnreadableEvent
from jobtape.schemas.events import JobEvent, Submitted, decode
from jobtape.schemas.fold import evolve
from jobtape.schemas.job import Job
from jobtape.schemas.messages.barrier import read_barrier
from jobtape.schemas.topology import BARRIER_KEY
from jobtape.view.store import FoldedBatch, HistoryRow, RawMessage, UnreadableRow, history_row
from jobtape.view.tallies import Tally

LoadJobs = Callable[[Collection[str]], dict[str, Job]]
FindPruned = Callable[[Collection[str]], Collection[str]]
FindNew = Callable[[Collection[str]], frozenset[str]]


def message_digest(message: TapeMessage) -> str:
    """Return the SHA-256 of the message's body in hex, by which the checkpoint recognises the message later."""
    return hashlib.sha256(message.body).hexdigest()


def fold_batch(
    messages: Sequence[TapeMessage],
    epoch: int,
    load_jobs: LoadJobs,
    find_pruned: FindPruned | None = None,
    find_new: FindNew | None = None,
) -> FoldedBatch:
    """Fold ``messages`` (at least one), barriers included, into a batch that ends at the offset of the last one.

    ``load_jobs``, ``find_pruned`` and ``find_new`` are those of ``fold_messages``.
    """
    barriers: dict[str, int] = {}
    unreadable: list[UnreadableRow] = []
    entries: list[RawMessage] = []
    for message in messages:
        entry = RawMessage(cursor_of(epoch, message.offset), message.body)
        if message.key != BARRIER_KEY:
            entries.append(entry)
            continue
        try:
            process, seq = read_barrier(message.body)
            barriers[process] = max(seq, barriers.get(process, 0))
        except UnreadableEvent as error:
            unreadable.append(UnreadableRow(entry.cursor, str(error), entry.body))
    last = messages[-1]
    batch = fold_messages(entries, load_jobs, find_pruned, find_new)
    return replace(
        batch,
        offset=last.offset,
        digest=message_digest(last),
        unreadable=[*unreadable, *batch.unreadable],
        barriers=barriers,
    )


def fold_messages(
    entries: Sequence[RawMessage],
    load_jobs: LoadJobs,
    find_pruned: FindPruned | None = None,
    find_new: FindNew | None = None,
) -> FoldedBatch:
    """Fold ``entries``, which contain no barriers, into a batch without an offset.

    ``load_jobs`` takes job ids and returns the jobs that the view contains now, by id. ``find_pruned`` takes ids of
    jobs that the view does not contain and returns those that were pruned; events of pruned jobs are dropped.
    ``find_new`` takes ids of jobs whose first event here is their submission, and returns those that are folded as new
    ones, without a read. An entry that cannot be read becomes an unreadable row with the reason.
    """
    events: list[tuple[int, JobEvent, str]] = []
    unreadable: list[UnreadableRow] = []
    for entry in entries:
        try:
            events.append((entry.cursor, decode(entry.body), entry.body.decode()))
        except UnreadableEvent as error:
            unreadable.append(UnreadableRow(entry.cursor, str(error), entry.body))
        except Exception as error:  # noqa: BLE001 - a bug in decoding one event must not stop the whole tape
            unreadable.append(UnreadableRow(entry.cursor, f"it could not be read: {error!r}"[:500], entry.body))

    first = {event.subject: event for _, event, _ in reversed(events)}
    new: frozenset[str] = frozenset()
    if find_new is not None:
        new = find_new([job_id for job_id, event in first.items() if type(event) is Submitted])
    ids = first.keys() - new
    before = load_jobs(ids)
    pruned = () if find_pruned is None else find_pruned(ids - before.keys())
    jobs = dict(before)
    history: list[HistoryRow] = []
    tally = Tally()
    for cursor, event, text in events:
        if event.subject in pruned:
            continue
        job = jobs.get(event.subject)
        after = evolve(job, event, cursor)
        jobs[event.subject] = after
        if after is not job:
            tally.add(job, event, after)
        history.append(history_row(cursor, event, text, job, after))
    changed = [job for job_id, job in jobs.items() if job is not before.get(job_id)]
    for job in changed:
        tally.move(before.get(job.id), job)
    return FoldedBatch(
        offset=None,
        digest=None,
        jobs=changed,
        history=history,
        unreadable=unreadable,
        tally=tally.sums(),
        failures=tally.failures(),
        new=new,
    )
