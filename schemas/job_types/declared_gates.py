"""The gates that a job type declares: its ordering key, limits and other keys, and how a submission's values are found
for them.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, get_args

from jobtape.schemas.errors import JobTypeInvalid, PayloadInvalid
from jobtape.schemas.queueing.gates import (
    KEY_LENGTH,
    LONGEST_DEBOUNCE,
    LONGEST_RATE,
    MAX_LIMITS,
    Conflict,
    DebounceKey,
    Gates,
    Limit,
    UniqueKey,
)

LABEL: Final = "label:"
"""Begins the name of a label where a field of the payload can be named too."""
OnFailure = Literal["continue", "hold"]
_NAME: Final = re.compile(r"[A-Za-z0-9_.\-]{1,120}")


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most ``at_most`` jobs have a slot at once, on all workers together. A job keeps its slot while it waits for a
    retry.

    ``by``: a field of the payload (``"customer"``, ``"order.customer"``) or a label (``"label:tenant"``), each value of
    which has a limit of its own; a job without a value has none. ``name``: job types with the same name share the
    limit. Default: the job type's name.
    """

    at_most: int
    by: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Rate:
    """At most ``at_most`` jobs are put on their queue in any ``per`` seconds, spaced evenly.

    A retry counts, but is not delayed by the rate. ``by`` and ``name`` are those of ``Concurrency``.
    """

    at_most: int
    per: float = 1.0
    by: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Unique:
    """One job with a key is open at a time.

    ``by``: the fields of the payload and the labels (as in ``Concurrency``) whose values are the key; without any, all
    jobs of the type have the same key. A job in which one of them is missing or null has no key. ``conflict``: what
    happens to a job whose key another open job has. ``"return"``: it ends ``cancelled``, with ``duplicate_of``.
    ``"replace"``: the other one ends so, unless it is running; then this one waits for its end. ``name``: job types
    with the same name share their keys. Default: the job type's name.
    """

    by: Sequence[str] = ()
    conflict: Conflict = "return"
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Debounce:
    """Of the jobs with a key that come shortly one after the other, the last one runs.

    ``seconds``: it runs when none has come for so long. The others end ``cancelled``, with ``duplicate_of``.
    ``at_most``: it runs at the latest so many seconds after the first one. Default: there is no such time. ``by`` and
    ``name`` are those of ``Unique``.
    """

    seconds: float
    by: Sequence[str] = ()
    at_most: float | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class DeclaredGates:
    """What the job type ``job_type`` declares about the gates of its jobs. ``rule``: its jobs are rules."""

    job_type: str
    ordering_key: str | None = None
    on_failure: OnFailure = "continue"
    limits: tuple[Concurrency | Rate, ...] = ()
    unique: Unique | None = None
    debounce: Debounce | None = None
    take_turns: str | None = None
    rule: bool = False

    def check(self, fields: Collection[str], where: str) -> None:
        """Raise JobTypeInvalid for a declaration that no payload with these ``fields`` can fulfil. ``where``: begins
        each message.
        """
        if self.on_failure not in ("continue", "hold"):
            raise JobTypeInvalid(f"{where}: on_failure is 'continue' or 'hold', not {self.on_failure!r}")
        self._check_keys(where)
        self._check_limits(where)
        keyed = self._keyed
        for name, path in (
            ("ordering_key", self.ordering_key),
            ("take_turns", self.take_turns),
            *(("by", limit.by) for limit in self.limits),
            *(("by", path) for each in keyed for path in each.by),
        ):
            if path is not None and not path.startswith(LABEL) and path.split(".")[0] not in fields:
                raise JobTypeInvalid(
                    f"{where}: {name}={path!r} is no parameter of the handler: name one, or a label as {LABEL}<name>"
                )
        for named in (*self.limits, *keyed):
            if named.name is not None and not _NAME.fullmatch(named.name):
                what = "a limit" if isinstance(named, Concurrency | Rate) else "the keys"
                raise JobTypeInvalid(f"{where}: the name of {what} must match {_NAME.pattern}, not {named.name!r}")

    @property
    def _keyed(self) -> list[Unique | Debounce]:
        return [each for each in (self.unique, self.debounce) if each is not None]

    def _check_keys(self, where: str) -> None:
        unique, debounce = self.unique, self.debounce
        for each in self._keyed:
            if isinstance(each.by, str):
                kind = type(each).__name__
                raise JobTypeInvalid(f"{where}: {kind}(by=...) is a list of names, like [{each.by!r}]")
        if unique is not None and unique.conflict not in get_args(Conflict):
            raise JobTypeInvalid(f"{where}: Unique(conflict=...) is 'return' or 'replace', not {unique.conflict!r}")
        if debounce is None:
            return
        if unique is not None and unique.conflict == "return":
            raise JobTypeInvalid(
                f"{where}: with Debounce the last job runs, with Unique(conflict='return') the first: "
                "use conflict='replace'"
            )
        if not 0 < debounce.seconds <= (debounce.at_most or LONGEST_DEBOUNCE) <= LONGEST_DEBOUNCE:
            raise JobTypeInvalid(
                f"{where}: Debounce(seconds=..., at_most=...) are above 0 and at most {LONGEST_DEBOUNCE:.0f} s, and "
                "at_most is not below seconds"
            )

    def _check_limits(self, where: str) -> None:
        if len(self.limits) > MAX_LIMITS:
            raise JobTypeInvalid(f"{where}: a job type has at most {MAX_LIMITS} limits")
        for limit in self.limits:
            if limit.at_most < 1 or (isinstance(limit, Rate) and not 0 < limit.per <= LONGEST_RATE):
                raise JobTypeInvalid(
                    f"{where}: {limit} cannot be kept: at_most is at least 1, per is above 0 and at most "
                    f"{LONGEST_RATE:.0f} s"
                )
        if len({(limit.name or self.job_type, limit.by, type(limit)) for limit in self.limits}) < len(self.limits):
            raise JobTypeInvalid(
                f"{where}: two limits of the same kind have the same name: give them different ones, name=..."
            )

    def plain(self) -> dict[str, Any] | None:
        """Return the declaration as plain JSON, for ``read``; None if there is none."""
        found: dict[str, Any] = {
            "ordering_key": self.ordering_key,
            "on_failure": None if self.on_failure == "continue" else self.on_failure,
            "limits": [asdict(limit) for limit in self.limits] or None,
            "unique": None if self.unique is None else asdict(self.unique),
            "debounce": None if self.debounce is None else asdict(self.debounce),
            "take_turns": self.take_turns,
        }
        return {name: value for name, value in found.items() if value is not None} or None

    @classmethod
    def read(cls, job_type: str, plain: Mapping[str, Any] | None) -> "DeclaredGates":
        """Return the declaration that ``plain`` has returned, which was checked when the job type was made."""
        given = plain or {}
        return cls(
            job_type,
            ordering_key=given.get("ordering_key"),
            on_failure=given.get("on_failure", "continue"),
            limits=tuple(Rate(**each) if "per" in each else Concurrency(**each) for each in given.get("limits", ())),
            unique=Unique(**given["unique"]) if "unique" in given else None,
            debounce=Debounce(**given["debounce"]) if "debounce" in given else None,
            take_turns=given.get("take_turns"),
        )

    def gates(
        self, payload: Mapping[str, Any], labels: Mapping[str, str], ordering_key: str | None = None
    ) -> Gates | None:
        """Return the gates of a submission; None if it has none. ``ordering_key``: that of the submission.

        Raises PayloadInvalid for a value that cannot be a key.
        """
        if self.rule:
            return Gates(rule=True)
        if ordering_key is None and self.ordering_key is not None:
            ordering_key = self._key(self.ordering_key, payload, labels)
        limits: list[Limit] = []
        for limit in self.limits:
            key = "" if limit.by is None else self._key(limit.by, payload, labels)
            if key is not None:
                per = float(limit.per) if isinstance(limit, Rate) else None
                limits.append(Limit(name=limit.name or self.job_type, key=key, at_most=limit.at_most, per=per))
        unique = debounce = None
        if self.unique is not None and (key := self._joined_key(self.unique.by, payload, labels)) is not None:
            unique = UniqueKey(name=self.unique.name or self.job_type, key=key, conflict=self.unique.conflict)
        if self.debounce is not None and (key := self._joined_key(self.debounce.by, payload, labels)) is not None:
            seconds, at_most = self.debounce.seconds, self.debounce.at_most
            name = self.debounce.name or self.job_type
            debounce = DebounceKey(name=name, key=key, seconds=seconds, at_most=at_most)
        if ordering_key is None and not limits and unique is None and debounce is None:
            return None
        turn = None if self.take_turns is None else self._key(self.take_turns, payload, labels)
        return Gates(
            ordering_key=ordering_key,
            hold=self.on_failure == "hold",
            limits=tuple(limits),
            unique=unique,
            debounce=debounce,
            turn=turn or "",
        )

    def _joined_key(self, by: Sequence[str], payload: Mapping[str, Any], labels: Mapping[str, str]) -> str | None:
        keys = [key for path in by if (key := self._key(path, payload, labels)) is not None]
        if len(keys) < len(by):
            return None
        if len(keys) > 1:  # so that a comma in a value does not look like the end of it
            keys = [key.replace("\\", "\\\\").replace(",", "\\,") for key in keys]
        joined = ", ".join(keys)
        if len(joined) > KEY_LENGTH:
            raise self._invalid((), f"the key {joined[:60]}... has more than {KEY_LENGTH} characters")
        return joined

    def _key(self, path: str, payload: Mapping[str, Any], labels: Mapping[str, str]) -> str | None:
        """Return the key for the value at ``path``. It has the name too, so that ids of different things differ."""
        value: Any
        if path.startswith(LABEL):
            parts = ["labels", path.removeprefix(LABEL)]
            value = labels.get(parts[1])
        else:
            value, parts = payload, path.split(".")
            for part in parts:
                value = value.get(part) if isinstance(value, Mapping) else None
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():  # a handler that takes an integer gets 7 for 7.0
            value = int(value)
        key = f"{path}={str(value).lower() if isinstance(value, bool) else value}"
        if not isinstance(value, str | int | float) or len(key) > KEY_LENGTH:
            message = f"{path} is a key of the job, so it must be a text or number of at most {KEY_LENGTH} characters"
            raise self._invalid(tuple(parts), message)
        return key

    def _invalid(self, loc: tuple[str, ...], message: str) -> PayloadInvalid:
        return PayloadInvalid(
            f"the payload does not fit the job type {self.job_type}: {message}",
            [{"loc": loc, "msg": message, "type": "key_invalid"}],
        )
