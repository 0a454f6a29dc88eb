"""A flow as it is submitted."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from jobtape.schemas.flows.flow import FLOW, MAX_NODES, NodeName
from jobtape.schemas.flows.graph import On, Stop
from jobtape.schemas.flows.references import Reference
from jobtape.schemas.fold import MAX_SIGNALS
from jobtape.schemas.job import LONGEST_DELAY, MAX_LABELS, QueueName
from jobtape.schemas.queueing.gates import KEY_LENGTH
from jobtape.schemas.queueing.lanes import Lane
from jobtape.schemas.submission import CORRELATION_ID_LENGTH, LabelName, LabelValue

NODE_OPTIONS: Final = ("queue", "lane", "timeout", "max_attempts", "ordering_key", "labels")
"""The options of a submission that a node has too. The others are those of the flow."""


class ListReference(BaseModel):
    """A list in the result of a node, `{"$from": node, "path": JSON Pointer}`, or in the input of the flow,
    `{"$input": JSON Pointer}`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    node: NodeName | None = Field(None, alias="$from")
    path: str = ""
    of_input: str | None = Field(None, alias="$input")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.node is None) is (self.of_input is None) or (self.of_input is not None and self.path):
            raise ValueError('give either "$from" with "path", or "$input"')
        return self

    @property
    def reference(self) -> Reference:
        """The reference as those in payloads."""
        if self.of_input is not None:
            return Reference(None, self.of_input, of_input=True)
        return Reference(self.node, self.path)


class NodeBody(BaseModel):
    """One node of a flow. What is absent is left to the job type."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    type: str = Field(min_length=1, max_length=120)
    """A job type of `GET /job-types`, or `jobtape.flow` for a flow within this one."""
    payload: dict[str, Any] = Field(default_factory=dict)
    """What the job type's JSON Schema asks for. `{"$from": node, "path": JSON Pointer}` stands for the result of
    another node, `{"$item": JSON Pointer}` for the item of a mapped node, `{"$input": JSON Pointer}` for what is in the
    input of the flow. The payload of a flow has the fields of this one up to `stop`; references to nodes of the outer
    flow are in its `input`."""
    after: Annotated[list[NodeName], Field(max_length=MAX_NODES)] = Field(default_factory=list)
    """The nodes that have to end first. Those to which the payload refers are added."""
    on: On = "success"
    """`success`: begins if they have succeeded; `failure`: if one has failed; `done`: in any case."""
    map: ListReference | None = None
    """A list in the result of another node, or in the input of the flow: the node has one job for each item."""
    limit: int | None = Field(None, ge=1, lt=2**31)
    """How many jobs of a mapped node are open at once."""
    queue: QueueName | None = None
    lane: Lane | None = None
    timeout: float | None = Field(None, gt=0, allow_inf_nan=False)
    max_attempts: int | None = Field(None, ge=1, le=1000)
    ordering_key: str | None = Field(None, min_length=1, max_length=KEY_LENGTH)
    labels: dict[LabelName, LabelValue] = Field(default_factory=dict, max_length=MAX_LABELS)

    def options(self) -> dict[str, Any]:
        """Return the options that are given, as fields of a submission."""
        given = {name: getattr(self, name) for name in NODE_OPTIONS}
        return {name: value for name, value in given.items() if value is not None}


class SignalBody(BaseModel):
    """A signal that nodes wait for."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    timeout: float | None = Field(None, gt=0, le=LONGEST_DELAY, allow_inf_nan=False)
    """Seconds in which it may come. Then its payload is null, and what waits for it begins. Default: no limit."""


class FlowBody(BaseModel):
    """The graph of a flow."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    name: str | None = Field(None, min_length=1, max_length=120)
    """For people."""
    input: dict[str, Any] = Field(default_factory=dict)
    """What `{"$input": JSON Pointer}` in the payloads of the nodes refers to."""
    nodes: dict[NodeName, NodeBody] = Field(min_length=1, max_length=MAX_NODES)
    """By name."""
    signals: dict[NodeName, SignalBody] = Field(default_factory=dict, max_length=MAX_SIGNALS)
    """By name: `POST /jobs/{id}/signals/{name}` sends them. A node waits for one that it comes `after`, or whose
    payload it gets by `$from`."""
    stop: Stop = "end"
    """After a failure that no node handles: `end` lets other branches go on, `now` cancels them."""


class FlowSubmission(FlowBody):
    """A flow to run. The other fields are those of a job."""

    delay: float | None = Field(None, ge=0, le=LONGEST_DELAY, allow_inf_nan=False)
    """Seconds from now until it begins, up to ten years."""
    run_at: datetime | None = None
    """When it begins (RFC 3339, with an offset)."""
    labels: dict[LabelName, LabelValue] = Field(default_factory=dict, max_length=MAX_LABELS)
    """Labels of the flow and of all its jobs."""
    correlation_id: str | None = Field(None, min_length=1, max_length=CORRELATION_ID_LENGTH)
    """Your name for the whole conversation, also of its jobs."""
    reply_to: QueueName | None = None
    """The final event is also published with the routing key `reply.<reply_to>`."""


_OF_THE_JOB = FlowSubmission.model_fields.keys() - FlowBody.model_fields.keys()


def flow_submission(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of ``POST /jobs`` for those of ``POST /flows``, unchecked."""
    payload = {name: value for name, value in body.items() if name not in _OF_THE_JOB}
    return {"type": FLOW, "payload": payload} | {name: body[name] for name in _OF_THE_JOB if name in body}
