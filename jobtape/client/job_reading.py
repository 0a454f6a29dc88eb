"""A job as the API shows it, read into what it is everywhere else here."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from jobtape.client.errors import WrongAddress
from jobtape.schemas.job import Job

_ADAPTER: Final[TypeAdapter[Job]] = TypeAdapter(Job)


def job_of(shown: Mapping[str, Any]) -> Job:
    """The job in an answer; ``cursor`` is 0 until it is known. Raises WrongAddress when it is no job."""
    try:
        return _ADAPTER.validate_python({**shown, "cursor": shown.get("cursor") or 0})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise WrongAddress(
            f"the API shows a job that this version cannot read ({place}: {first['msg']}): is it another version?"
        ) from None
