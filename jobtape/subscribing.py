"""``jobtape.subscribe``: get the events of jobs in a process of your own.

    async with jobtape.subscribe(events=["succeeded"], types=["mail.*"], name="billing") as events:
        async for event in events:
            print(each.job_id, each.result)

Importing this connects to nothing; AMQP and SQL are imported by the subscription that needs them.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal

from jobtape.schemas.cursor import MAX_CURSOR
from jobtape.schemas.errors import SubscriptionRefused
from jobtape.schemas.events import RELAYED_EVENTS, RelayMode
from jobtape.schemas.ids import parse_job_id
from jobtape.schemas.job_types.job_type import JobTypeSpec
from jobtape.schemas.selection import Selection
from jobtape.schemas.topology import Bounds
from jobtape.settings import Settings, read_settings

if TYPE_CHECKING:
    from jobtape.consumer.subscriptions.subscription import EventSource, Subscription

NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,63}")
LONGEST_IDLE: Final = 45 * 86_400.0
"""Seconds; RabbitMQ's longest expiry is a little more."""
MOST_PREFETCHED: Final = 2000
USUAL: Final = Bounds()
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
    max_length: int = USUAL.messages,
    max_bytes: int = USUAL.octets,
    expires: float = USUAL.idle,
    prefetch: int = 20,
    settings: Settings | None = None,
) -> "Subscription":
    """A subscription, for ``async with`` and ``async for``, or ``await subscribe(...).run(callback)``.

    ``events``, ``types`` (``mail.*``: all that begin so), ``job``, ``labels`` and ``correlation_id`` filter; what is
    left out matches any. Without ``since`` it is live over AMQP and gets what the relay publishes; events that
    JOBTAPE_RELAY_EVENTS leaves out are refused. With ``since`` it reads the history in the database and then follows
    it: after a cursor, from a time on, from the ``"first"`` event, or from ``"now"``.

    ``name`` makes it durable. Live: a queue that consumers of this name share, of at most ``max_length`` messages and
    ``max_bytes`` (the oldest are dropped), removed after ``expires`` seconds without a consumer; ``prefetch`` is how
    many wait in one consumer. With ``since``: a stored position, which then counts instead of ``since``; one consumer
    is active.

    ``on_gap``: when events are not there any more, ``"raise"`` EventsMissed (HistoryGone with ``since``) or log it and
    go on (``"skip"``). Default: raise with ``since``, otherwise skip. ``settings``: the environment's unless given.

    Raises SubscriptionRefused, and JobtapeError for wrong settings; nothing connects before the ``async with``.
    """
    from jobtape.consumer.subscriptions.subscription import Subscription  # noqa: PLC0415

    wanted = _selection(events, types, job, labels, correlation_id)
    _check(name, since, max_length, max_bytes, expires, prefetch)
    known = settings or read_settings()
    if since is None:
        _check_relayed(wanted, known.relay_events)
    skip_gaps = on_gap == "skip" if on_gap is not None else since is None

    def caught_up(since: Since) -> "EventSource":
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

    return Subscription(live if since is None else lambda: caught_up(since))


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
        raise SubscriptionRefused(f"nothing could match: {fault}")
    return wanted


def _check(
    name: str | None, since: Since | None, max_length: int, max_bytes: int, expires: float, prefetch: int
) -> None:
    if name is not None and not NAME.fullmatch(name):
        raise SubscriptionRefused(
            f"{name!r} is no name of a subscription: letters, digits, _, - and . only, at most 64, not . or - first"
        )
    if isinstance(since, datetime) and since.tzinfo is None:
        raise SubscriptionRefused("since has no time zone: say which, for example datetime.now(UTC)")
    if isinstance(since, str) and since not in ("first", "now"):
        raise SubscriptionRefused(f"since={since!r}: a cursor, an aware datetime, 'first' or 'now'")
    if isinstance(since, int) and not 0 <= since <= MAX_CURSOR:
        raise SubscriptionRefused(f"since={since} is no cursor")
    if max_length < 1 or max_bytes < 1 or not 1 <= expires <= LONGEST_IDLE or not 1 <= prefetch <= MOST_PREFETCHED:
        raise SubscriptionRefused(
            f"max_length and max_bytes are at least 1, expires from 1 s to {LONGEST_IDLE:.0f} s, prefetch from 1 to "
            f"{MOST_PREFETCHED}"
        )


def _check_relayed(wanted: Selection, relay: RelayMode) -> None:
    """Nobody is to wait for what never comes. The projector's own setting is not known here: it has to be the same."""
    delivered = RELAYED_EVENTS[relay]
    undelivered = wanted.events - delivered
    if delivered and not undelivered:
        return
    more = "" if undelivered == {"submitted"} else ", or set JOBTAPE_RELAY_EVENTS=all for the projectors and here"
    what = f"{', '.join(sorted(undelivered))} cannot be delivered" if undelivered else "nothing can be delivered"
    raise SubscriptionRefused(
        f"{what} over AMQP with JOBTAPE_RELAY_EVENTS={relay}: read it from the database with since='now'{more}"
    )
