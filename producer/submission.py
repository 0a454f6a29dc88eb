"""What a client asks for: the body of ``POST /jobs``, an item of ``POST /jobs/batch``, the arguments of ``submit``."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from jobtape.producer.refusals import SubmissionInvalid
from jobtape.schemas import plainjson
from jobtape.schemas.job import MAX_LABELS, QueueName

LABEL_NAME_LENGTH: Final = 64
LABEL_VALUE_LENGTH: Final = 200
CORRELATION_ID_LENGTH: Final = 255
MAX_FAULTS: Final = 20
"""Faults told of one body; a long list of wrong values would otherwise make an answer larger than the question."""


def _carried(text: str) -> str:
    if (reason := plainjson.fault(text)) is not None:
        raise ValueError(reason.removeprefix("value: "))
    return text


_Text = AfterValidator(_carried)
# No colon: lists ask for `?label=name:value`.
LabelName = Annotated[str, Field(min_length=1, max_length=LABEL_NAME_LENGTH, pattern="^[^:]*$"), _Text]
LabelValue = Annotated[str, Field(max_length=LABEL_VALUE_LENGTH), _Text]


class Submission(BaseModel):
    """One job to be done. What is absent is left to the job type; unknown fields are refused."""

    # Strict: the text "30" is no number of seconds, and a client that sends it has made a mistake.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    type: str = Field(min_length=1, max_length=120, description="A job type of `GET /job-types`.")
    payload: dict[str, Any] = Field(description="What the job type's JSON Schema asks for.")
    queue: QueueName | None = Field(None, description="A queue of one of the job types; its own when absent.")
    timeout: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Seconds that the job may run; the job type's when absent."
    )
    labels: dict[LabelName, LabelValue] = Field(
        default_factory=dict, max_length=MAX_LABELS, description="To find the job by, `?label=name:value`."
    )
    correlation_id: Annotated[str, _Text] | None = Field(
        None, min_length=1, max_length=CORRELATION_ID_LENGTH, description="Your name for the whole conversation."
    )


def read_submission(value: Any) -> Submission:
    """The submission in a parsed JSON value. Raises SubmissionInvalid with the faults."""
    if not isinstance(value, Mapping):
        kind = "null" if value is None else type(value).__name__
        message = f"a submission is a JSON object with type and payload, not {kind}"
        raise SubmissionInvalid(message, [{"loc": (), "msg": message}])
    try:
        return Submission.model_validate(value)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        first = faults[0]
        place = ".".join(str(part)[:80] for part in first["loc"])
        raise SubmissionInvalid(
            f"not a submission: {place}: {first['msg']}",
            [{"loc": fault["loc"], "msg": fault["msg"]} for fault in faults[:MAX_FAULTS]],
        ) from None
