"""The versions of a job type's payload, and how an older payload becomes a newer one.

A job may wait for days, be tried again, or be redriven after months; meanwhile its handler may have come to want
another payload. What was submitted stays as it is, with the version it is of, and is lifted when it is worked on: one
version at a time, as events are (``upcast``).
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from jobtape.schemas.errors import JobTypeInvalid, PayloadInvalid

PayloadUpcaster = Callable[[dict[str, Any]], dict[str, Any]]
"""Makes a payload of version *n* one of *n + 1*: from its argument alone. What it raises makes the payload invalid."""


class PayloadVersions:
    """``newest`` counts from 1; ``upcasters``, by the version that they lift, lead to it without a gap.

    Raises JobTypeInvalid, which begins with ``where``.
    """

    def __init__(self, newest: int, upcasters: Mapping[int, PayloadUpcaster], where: str) -> None:
        if type(newest) is not int or not 1 <= newest < 2**31:
            raise JobTypeInvalid(f"{where}: the payload's version is a whole number from 1 on, not {newest!r}")
        if odd := [step for step in upcasters if type(step) is not int or not 1 <= step < newest]:
            raise JobTypeInvalid(
                f"{where}: version={newest} has upcasters for the versions before it, not for {odd[0]!r}"
            )
        first = min(upcasters, default=1)
        if missing := [step for step in range(first, newest) if step not in upcasters]:
            raise JobTypeInvalid(
                f"{where}: payloads of version {missing[0]} may still be waiting, and nothing makes them version "
                f"{missing[0] + 1}: add upcasters={{{missing[0]}: …}}"
            )
        self.newest = newest
        self._upcasters = dict(upcasters)

    def lift(self, payload: dict[str, Any], version: int) -> dict[str, Any]:
        """``payload``, which is of ``version``, in the newest one. Raises PayloadInvalid with the reason."""
        if version == self.newest:
            return payload
        if version > self.newest:
            raise PayloadInvalid(f"the payload is of version {version}, and only {self.newest} is known here")
        payload = copy.deepcopy(payload)  # it goes back to the tape as it was when another attempt follows
        for step in range(version, self.newest):
            payload = self._step(payload, step)
        return payload

    def _step(self, payload: dict[str, Any], step: int) -> dict[str, Any]:
        upcaster = self._upcasters.get(step)
        if upcaster is None:
            raise PayloadInvalid(f"the payload is of version {step}, which nothing makes version {step + 1} any more")
        try:
            lifted = upcaster(payload)
        except Exception as error:
            raise PayloadInvalid(
                f"the payload of version {step} does not become one of version {step + 1}: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(lifted, dict):
            raise PayloadInvalid(f"the upcaster of version {step} gives a {type(lifted).__name__}, and no payload")
        return lifted
