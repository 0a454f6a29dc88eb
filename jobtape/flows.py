"""Flows in Python: graphs of jobs, which begin when others have ended, with their results.

flow = Flow("import")
listed = flow.add(list_pages, url="https://example.com")
parsed = flow.map(parse, over=listed.result["items"], link=item["href"])
flow.add(store, parts=parsed.result)
job = await flow.submit()
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final

from pydantic_core import to_jsonable_python

from jobtape.jobs import JobType, Step
from jobtape.process import running
from jobtape.schemas.execution import context
from jobtape.schemas.flows.chains import PREVIOUS, free_name
from jobtape.schemas.flows.flow import FLOW
from jobtape.schemas.flows.graph import On, Stop
from jobtape.schemas.flows.references import Reference
from jobtape.schemas.flows.submission import NODE_OPTIONS, flow_submission
from jobtape.schemas.job import Job
from jobtape.schemas.submission import Options, Submission, read_submission


@dataclass(frozen=True, slots=True)
class Result:
    """Stands for the result of a node, for the item of a mapped node or, with ``of_input``, for the input of the flow.
    ``result["items"][0]`` stands for what is in it.
    """

    node: str | None
    path: str = ""
    of_input: bool = False

    def __getitem__(self, key: str | int) -> "Result":
        step = str(key).replace("~", "~0").replace("/", "~1")
        return Result(self.node, f"{self.path}/{step}", self.of_input)

    def __iter__(self) -> Iterator[Any]:
        raise TypeError("a result is not known before the flow runs: use Flow.map to have a job for each of its items")

    def plain(self) -> dict[str, str]:
        """Return the reference as it is written in a payload."""
        return Reference(self.node, self.path, self.of_input).plain()


item: Final = Result(None)
"""Stands for the item in the arguments of a mapped node."""
previous: Final = Result(PREVIOUS)
"""Stands for the result of the step before, in the arguments of a step of ``chain``."""


@dataclass(frozen=True, slots=True)
class NodeHandle:
    """A node of a flow that is being made. ``result``: for the arguments of other nodes; of a mapped node it is
    the list of its results.
    """

    name: str

    @property
    def result(self) -> Result:
        """What the job of the node returns, or the list of what the jobs of a mapped node return."""
        return Result(self.name)


def step(job_type: JobType[Any] | str, /, *args: Any, **kwargs: Any) -> Step:
    """Return a step as ``JobType.step`` does. A job type may be given by its name."""
    return Step(job_type, args, kwargs, Options())


def step_with(options: Options, job_type: JobType[Any] | str, /, *args: Any, **kwargs: Any) -> Step:
    """Return a step as ``JobType.step_with`` does. A job type may be given by its name."""
    return Step(job_type, args, kwargs, options)


class Flow:
    """A graph of jobs. ``name``: for people. ``given``: its input (see ``input``).

    ``labels`` and ``correlation_id``: of the flow and of all its jobs. ``delay`` (seconds) and ``run_at``: when it
    begins. ``stop``: after a failure that no node handles, ``"end"`` lets other branches go on, ``"now"`` cancels them.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        delay: float | None = None,
        run_at: datetime | None = None,
        stop: Stop = "end",
        given: Mapping[str, Any] | None = None,
    ) -> None:
        values = {
            "name": name,
            "input": None if given is None else to_jsonable_python(given),
            "labels": None if labels is None else dict(labels),
            "correlation_id": correlation_id,
            "reply_to": reply_to,
            "delay": delay,
            "run_at": None if run_at is None else run_at.isoformat(),
        }
        self._fields: dict[str, Any] = {key: value for key, value in values.items() if value is not None}
        self._fields["stop"] = stop
        self._nodes: dict[str, dict[str, Any]] = {}
        self._signals: dict[str, dict[str, float]] = {}

    def add(
        self,
        job_type: "JobType[Any] | str | Flow",
        /,
        *args: Any,
        after: Iterable[NodeHandle] = (),
        on: On = "success",
        node: str | None = None,
        options: Options | None = None,
        **kwargs: Any,
    ) -> NodeHandle:
        """Add a node: a job with the handler's arguments, which may contain results of other nodes.

        A flow is added like a job type. Its keyword arguments are its input, and its result has the results of its last
        nodes by their names.

        ``after``: nodes that have to end first, besides those whose results it gets. ``on``: ``"success"`` begins it if
        they have succeeded, ``"failure"`` if there is a failure before it, ``"done"`` in any case. ``node``: its name;
        default: that of the job type. ``options``: queue, lane, timeout, max_attempts, ordering_key and
        labels of its jobs.

        Raises PayloadInvalid for arguments that do not fit, and ValueError for a name that is taken and for other
        options.
        """
        return self._add(job_type, args, kwargs, after, on, node, options, {})

    def map(
        self,
        job_type: "JobType[Any] | str | Flow",
        /,
        *args: Any,
        over: Result,
        limit: int | None = None,
        after: Iterable[NodeHandle] = (),
        on: On = "success",
        node: str | None = None,
        options: Options | None = None,
        **kwargs: Any,
    ) -> NodeHandle:
        """Add a node with one job for each item of the list ``over``, a result or a part of it.

        In the arguments ``item`` stands for the item; without arguments the item is the payload. ``limit``: how many of
        its jobs are open at once. The others are those of ``add``.
        """
        more = {"map": over.plain()} | ({} if limit is None else {"limit": limit})
        return self._add(job_type, args, kwargs, after, on, node, options, more)

    @property
    def input(self) -> Result:
        """What the flow is given, for the arguments of its nodes: ``Flow(given={"url": …}).input["url"]``."""
        return Result(None, of_input=True)

    def wait(self, signal: str, *, timeout: float | None = None) -> NodeHandle:
        """Add a signal that others come after: ``POST /jobs/{id}/signals/{name}`` sends it.

        Its ``result`` is its payload. ``timeout``: seconds from the beginning of the flow in which it may come. Then
        its payload is None, and what comes after it begins. Raises ValueError for a name that is taken.
        """
        if signal in self._nodes or signal in self._signals:
            raise ValueError(f"the flow has a node {signal!r} already: give the signal another name")
        self._signals[signal] = {} if timeout is None else {"timeout": timeout}
        return NodeHandle(signal)

    def body(self) -> dict[str, Any]:
        """Return the flow as the body of ``POST /flows``."""
        return {**self._fields, "nodes": self._nodes} | ({"signals": self._signals} if self._signals else {})

    async def submit(self, *, idempotency_key: str | None = None) -> Job:
        """Submit the flow, and return it, as a job, when the broker has confirmed it.

        Works where ``submit`` of a job type works, and raises what that raises.
        """
        return await running.installation_for(FLOW).submit(*self._submission(idempotency_key))

    def submit_sync(self, *, idempotency_key: str | None = None) -> Job:
        """Submit the flow as ``submit`` does, and block the thread."""
        return running.installation_for(FLOW).submit_sync(*self._submission(idempotency_key))

    def _submission(self, key: str | None) -> tuple[Submission, str | None, str | None]:
        body = flow_submission(self.body())
        within = None if key is not None else context.current.get()
        if within is not None:
            body.setdefault("correlation_id", within.correlation_id)
        return read_submission(body, Submission), key, None if within is None else within.event_id

    def _add(
        self,
        job_type: "JobType[Any] | str | Flow",
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        after: Iterable[NodeHandle],
        on: On,
        node: str | None,
        options: Options | None,
        more: Mapping[str, Any],
    ) -> NodeHandle:
        if isinstance(job_type, Flow):
            type_name, default_name, body = FLOW, "flow", job_type._as_node(args, kwargs)
        else:
            type_name = default_name = job_type if isinstance(job_type, str) else job_type.name
            body = {"payload": _payload(job_type, args, kwargs, bare="map" in more)}
        if node is not None and (node in self._nodes or node in self._signals):
            raise ValueError(f"the flow has a node {node!r} already: give this one another name, node=...")
        name = node or free_name(default_name, self._nodes.keys() | self._signals.keys())
        body = {"type": type_name, **body}
        if names := [each.name for each in after]:
            body["after"] = names
        if on != "success":
            body["on"] = on
        if options is not None:
            body |= _given(options)
        self._nodes[name] = body | dict(more)
        return NodeHandle(name)

    def _as_node(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the node of an outer flow has of this one, with the input ``kwargs``."""
        if args:
            raise TypeError("give a flow its input as keywords")
        if alone := [name for name in self._fields if name not in ("name", "input", "stop", "labels")]:
            raise ValueError(f"a flow within another one has no {', '.join(alone)}: give them to the outer one")
        payload: dict[str, Any] = {name: self._fields[name] for name in ("name", "stop") if name in self._fields}
        given = {**self._fields.get("input", {}), **{name: _plain(value) for name, value in kwargs.items()}}
        payload |= {"input": given, "nodes": dict(self._nodes)}
        payload |= {"signals": dict(self._signals)} if self._signals else {}
        return {"payload": payload} | {name: self._fields[name] for name in ("labels",) if name in self._fields}


def chain(*steps: Step, flow: Flow | None = None) -> Flow:
    """Return a flow whose steps run one after the other, each after the success of the one before.

    In the arguments of a step, ``previous`` stands for the result of the step before. ``flow``: add the steps to this
    one.
    """
    flow = flow or Flow()
    last: NodeHandle | None = None
    for each in steps:
        args, kwargs = _with_previous((each.args, dict(each.kwargs)), last)
        after = () if last is None else (last,)
        last = flow.add(each.job_type, *args, after=after, options=each.options, **kwargs)
    return flow


def _given(options: Options) -> dict[str, Any]:
    """Return the options that are given. Raises ValueError for those that a node cannot have."""
    given = {each.name: getattr(options, each.name) for each in fields(options)}
    given["labels"] = dict(options.labels) or None
    given = {name: value for name, value in given.items() if value is not None}
    if wrong := [name for name in given if name not in NODE_OPTIONS]:
        raise ValueError(
            f"a node of a flow has no option {', '.join(wrong)}, only {', '.join(NODE_OPTIONS)}: give the others to "
            "Flow(…), and the idempotency key to Flow.submit"
        )
    return given


def _with_previous(value: Any, last: NodeHandle | None) -> Any:
    if isinstance(value, Result) and value.node == PREVIOUS:
        if last is None:
            raise ValueError("the first step of a chain has no previous one")
        return Result(last.name, value.path)
    if isinstance(value, Mapping):
        return {key: _with_previous(child, last) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_with_previous(child, last) for child in value)
    return value


def _payload(
    job_type: JobType[Any] | str, args: Sequence[Any], kwargs: Mapping[str, Any], *, bare: bool
) -> dict[str, Any]:
    """Return the payload with references. ``bare``: without arguments it is empty."""
    if not isinstance(job_type, str) and not _has_result((*args, *kwargs.values())):
        return {} if bare and not args and not kwargs else job_type.payload_to_send(*args, **kwargs)
    if isinstance(job_type, str):
        names: Sequence[str] = ()
        if args:
            if len(args) > 1 or kwargs or not isinstance(args[0], Mapping):
                raise TypeError("with the name of a job type, give the payload as one mapping or as keywords")
            return {str(key): _plain(value) for key, value in args[0].items()}
    else:
        names = list(job_type.payload_model.model_fields)
    if len(args) > len(names):
        raise TypeError(f"it takes {len(names)} positional arguments, not {len(args)}")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    return {name: _plain(value) for name, value in given.items()}


def _has_result(value: Any) -> bool:
    if isinstance(value, Result):
        return True
    children = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return any(map(_has_result, children))


def _plain(value: Any) -> Any:
    if isinstance(value, Result):
        return value.plain()
    if isinstance(value, Mapping):
        return {str(key): _plain(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(child) for child in value]
    return to_jsonable_python(value)
