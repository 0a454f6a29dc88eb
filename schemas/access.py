"""Who may do what: scopes of API keys, and the job types that a key is limited to."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from jobtape.schemas.errors import JobtapeError
from jobtape.schemas.filters.job_filter import CANCEL, REDRIVE
from jobtape.schemas.filters.selection import fits_type
from jobtape.schemas.flows.flow import FLOW
from jobtape.schemas.job import Job
from jobtape.schemas.job_types.job_type import BUILTIN_PREFIX
from jobtape.schemas.messages.replay_request import REPLAY
from jobtape.schemas.submission import NextStep

_BY_FILTER: Final = {REDRIVE: "type", CANCEL: "type", REPLAY: "types"}
"""The built-in jobs that act on jobs of a filter, with the field of the payload that has the job types."""


class Scope(StrEnum):
    """What a key is for. None contains another."""

    READ = "read"
    SUBMIT = "submit"
    MANAGE = "manage"


class Forbidden(JobtapeError):
    """The caller's fault: the API key does not allow the request."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request. ``id`` and ``name``: of the API key. ``types``: the job types that it sees and touches; none
    means all.
    """

    id: str
    name: str
    scopes: frozenset[Scope]
    types: frozenset[str] = frozenset()

    def require(self, scope: Scope) -> None:
        """Raise Forbidden without this scope."""
        if scope not in self.scopes:
            has = ", ".join(sorted(self.scopes))
            raise Forbidden(f"this needs an API key with the scope {scope}; {self.name!r} has {has}: use another key")

    def require_all_types(self) -> None:
        """Raise Forbidden when the key is limited to job types."""
        if self.types:
            raise Forbidden(
                f"this concerns jobs of all types, and the API key {self.name!r} is limited to some: use another key"
            )

    def narrow(self, wanted: Collection[str]) -> list[str]:
        """Return the job types of a filter that the caller sees; an empty list restricts nothing.

        ``wanted``: job types, or patterns such as ``mail.*``. Without any, all that the caller sees. Raises Forbidden
        when one of them matches no job type of the caller.
        """
        if not self.types:
            return list(wanted)
        for pattern in wanted:
            if not any(fits_type(pattern, each) for each in self.types):
                raise self._outside(pattern)
        return sorted(each for each in self.types if not wanted or any(fits_type(one, each) for one in wanted))

    def sees_types(self, wanted: Collection[str]) -> bool:
        """Return whether the caller sees all of these job types. None of them means all that there are."""
        return not self.types or (len(wanted) > 0 and self.types.issuperset(wanted))

    def sees(self, job: Job) -> bool:
        """Return whether the caller sees this job. See ``sees_order``."""
        return self.sees_order(job.type, job.payload)

    def sees_order(self, job_type: str, payload: Mapping[str, Any] | None) -> bool:
        """Return whether the caller sees a job that was accepted: by its type; a flow by those of all its nodes, and a
        bulk action or replay by those of its filter.
        """
        if not self.types or job_type in self.types:
            return True
        if job_type == FLOW:
            return self.sees_types([*_types_of(job_type, payload or {}, recorded=True)])
        wanted = (payload or {}).get(_BY_FILTER.get(job_type, ""))
        return isinstance(wanted, list) and self.sees_types(wanted)

    def check_submission(self, job_type: str, payload: Mapping[str, Any], then: Sequence[NextStep] = ()) -> None:
        """Raise Forbidden unless the caller may submit a job of this type with this unchecked payload, and what runs
        ``then``.

        A built-in job other than a flow acts on other jobs, so it needs the scope ``manage`` and all job types.
        """
        given = [(job_type, payload), *((step.type, step.payload) for step in then)]
        for each in (name for kind, content in given for name in _types_of(kind, content, recorded=False)):
            if each.startswith(BUILTIN_PREFIX):
                self.require(Scope.MANAGE)
                self.require_all_types()
            elif self.types and each not in self.types:
                raise self._outside(each)

    def _outside(self, wanted: str) -> Forbidden:
        own = ", ".join(sorted(self.types))
        return Forbidden(f"the API key {self.name!r} is limited to {own}: leave out {wanted!r}, or use another key")


ANYBODY: Final = Caller("", "anybody", frozenset(Scope))
"""Who sends a request to an API that needs no key."""


def _types_of(job_type: str, payload: Mapping[str, Any], *, recorded: bool) -> Iterator[str]:
    """Yield the job types of the nodes of a flow, and of flows in it; of another job its type. Ignores what is no flow:
    the check of the submission refuses that.

    ``recorded``: the nodes are those of ``RecordedFlow``, otherwise of ``FlowBody``.
    """
    left: list[tuple[str, Any]] = [(job_type, payload)]
    while left:
        name, content = left.pop()
        if name != FLOW:
            yield name
            continue
        nodes = content.get("nodes") if isinstance(content, Mapping) else None
        for node in nodes.values() if isinstance(nodes, Mapping) else ():
            order = node.get("order") if recorded and isinstance(node, Mapping) else node
            if isinstance(order, Mapping) and isinstance(kind := order.get("type"), str):
                left.append((kind, order.get("payload")))
