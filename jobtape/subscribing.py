"""``jobtape.subscribe``: receive the events of jobs in a process of your own.

    async with jobtape.subscribe(events=["succeeded"], types=["mail.*"], name="billing") as events:
        async for event in events:
            print(event.job_id, event.result)

The import connects to nothing; a subscription imports AMQP or SQL when it needs it.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal

from jobtape.schemas.cursor import MAX_CURSOR
from jobtape.schemas.errors import SubscriptionRefused
from jobtape.schemas.events import RELAYED_EVENTS, RelayMode
from jobtape.schemas.filters.selection import Selection
from jobtape.schemas.ids import parse_job_id
from jobtape.schemas.job_types.job_type import JobTypeSpec
from jobtape.schemas.topology import Bounds
from jobtape.settings import Settings, read_settings

if TYPE_CHECKING:
    from jobtape.consumer.subscriptions.subscription import EventSource, Subscription

NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,63}")
LONGEST_EXPIRY: Final = 45 * 86_400.0
"""Seconds; RabbitMQ allows a little more."""
MAX_PREFETCH: Final = 2000
DEFAULT_BOUNDS: Final = Bounds()
Since = int | datetime | Literal["first", "now"]


def subscribe(
    *,
    events: str | Iterable[str] = (),
    types: str | JobTypeSpec | Iterable[str | JobTypeSpec] = (),
    job: str | None = None,
    labels: Mapping[str, str] | None = None,
    correlation_id: str | None = None,
    name: str | None = None,
    since: Since | None = None,
    on_gap: Literal["raise", "skip"] | None = None,
    max_length: int = DEFAULT_BOUNDS.messages,
    max_bytes: int = DEFAULT_BOUNDS.octets,
    expires: float = DEFAULT_BOUNDS.idle,
    prefetch: int = 20,
    settings: Settings | None = None,
) -> "Subscription":
    """Return a subscription, for ``async with`` and ``async for``, or ``await subscribe(...).run(callback)``.

    Without ``since`` it is live, over AMQP, and receives what the relay publishes. With ``since`` it reads the history
    in the database, and then follows it. An event must match all filters. It connects only at ``async with``. Raises
    SubscriptionRefused, and JobtapeError for wrong settings.

    :param events: Filter: names of events, such as ``"failed"``.
    :param types: Filter: names of job types, or what ``@job`` made; ``mail.*`` matches all that begin with ``mail.``.
    :param job: Filter: the id of a job.
    :param labels: Filter: labels, all of which the job must have.
    :param correlation_id: Filter: the job's correlation id.
    :param name: Makes the subscription durable. A live one has a queue that all consumers of this name share. With
        ``since``, the position is stored and used from then on, and one consumer is active.
    :param since: Where to begin: after a cursor, at a time, with the ``"first"`` event, or ``"now"``.
    :param on_gap: When events are no longer kept: ``"raise"`` EventsMissed or HistoryGone, or log it and ``"skip"``
        them. Default: raise with ``since``, skip without.
    :param max_length: The most messages in the queue of a live subscription. The oldest are dropped.
    :param max_bytes: The most bytes in that queue.
    :param expires: Seconds without a consumer after which that queue is deleted.
    :param prefetch: How many messages wait in one consumer.
    :param settings: Default: those of the environment.
    """
    from jobtape.consumer.subscriptions.subscription import Subscription  # noqa: PLC0415

    wanted = _selection(events, types, job, labels, correlation_id)
    _check(name, since, max_length, max_bytes, expires, prefetch)
    known = settings or read_settings()
    if since is None:
        _check_relayed(wanted, known.relay_events)
    skip_gaps = on_gap == "skip" if on_gap is not None else since is None

    def catch_up(since: Since) -> "EventSource":
        from jobtape.consumer.subscriptions.catch_up import CatchUpSource  # noqa: PLC0415
        from jobtape.view.store import Store  # noqa: PLC0415

        return CatchUpSource(
            Store(known.database_url), wanted, since, name=name, lease=known.projector_lease, skip_gaps=skip_gaps
        )

    def live() -> "EventSource":
        from jobtape.consumer.subscriptions.result_queue import EPHEMERAL_EXPIRES, ResultQueueSource  # noqa: PLC0415

        return ResultQueueSource(
            known.rabbitmq_url,
            known.topology,
            wanted,
            name=name,
            bounds=Bounds(max_length, max_bytes, EPHEMERAL_EXPIRES if name is None else expires),
            prefetch=prefetch,
            skip_gaps=skip_gaps,
        )

    return Subscription(live if since is None else lambda: catch_up(since))


def _selection(
    events: str | Iterable[str],
    types: str | JobTypeSpec | Iterable[str | JobTypeSpec],
    job: str | None,
    labels: Mapping[str, str] | None,
    correlation_id: str | None,
) -> Selection:
    several = [types] if isinstance(types, str | JobTypeSpec) else types
    wanted = Selection(
        events=frozenset([events] if isinstance(events, str) else events),
        types=frozenset(each.name if isinstance(each, JobTypeSpec) else each for each in several),
        job=None if job is None else parse_job_id(job) or job,
        labels=dict(labels or {}),
        correlation_id=correlation_id,
    )
    if (fault := wanted.fault()) is not None:
        raise SubscriptionRefused(f"no event can match: {fault}")
    return wanted


def _check(
    name: str | None, since: Since | None, max_length: int, max_bytes: int, expires: float, prefetch: int
) -> None:
    if name is not None and not NAME.fullmatch(name):
        raise SubscriptionRefused(
            f"{name!r} cannot be the name of a subscription: letters, digits, _, - and . only, at most 64, and no - or "
            ". at the beginning"
        )
    if isinstance(since, datetime) and since.tzinfo is None:
        raise SubscriptionRefused("since has no time zone: give it one, for example datetime.now(UTC)")
    if isinstance(since, str) and since not in ("first", "now"):
        raise SubscriptionRefused(f"since={since!r} is not a cursor, a datetime with a time zone, 'first' or 'now'")
    if isinstance(since, int) and not 0 <= since <= MAX_CURSOR:
        raise SubscriptionRefused(f"since={since} is not a cursor")
    if max_length < 1 or max_bytes < 1 or not 1 <= expires <= LONGEST_EXPIRY or not 1 <= prefetch <= MAX_PREFETCH:
        raise SubscriptionRefused(
            f"max_length and max_bytes are at least 1, expires is from 1 s to {LONGEST_EXPIRY:.0f} s, and prefetch is "
            f"from 1 to {MAX_PREFETCH}"
        )


def _check_relayed(wanted: Selection, relay: RelayMode) -> None:
    """Raise SubscriptionRefused when the relay does not publish these events, so that nobody waits for them in vain.

    The projector's own setting is not known here; it must be the same.
    """
    delivered = RELAYED_EVENTS[relay]
    undelivered = wanted.events - delivered
    if delivered and not undelivered:
        return
    more = "" if undelivered == {"submitted"} else ", or set JOBTAPE_RELAY_EVENTS=all for the projectors and here"
    what = f"{', '.join(sorted(undelivered))} cannot be delivered" if undelivered else "nothing can be delivered"
    raise SubscriptionRefused(
        f"{what} over AMQP with JOBTAPE_RELAY_EVENTS={relay}: read it from the database with since='now'{more}"
    )
