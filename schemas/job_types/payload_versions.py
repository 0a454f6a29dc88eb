"""Upcasts payloads of older versions to the newest one.

A job may wait for days or be redriven after months, and its handler may need another payload by then. The submitted
payload stays as it is, with its version. It is upcast when the job runs, one version at a time, as events are.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from jobtape.schemas.errors import JobTypeInvalid, PayloadInvalid, described

PayloadUpcaster = Callable[[dict[str, Any]], dict[str, Any]]
"""Turns a payload of version *n* into one of version *n + 1*. An exception makes the payload invalid."""


class PayloadVersions:
    """``newest`` counts from 1. ``upcasters``, by the version that they take, lead to it without a gap.

    Raises JobTypeInvalid with a text that begins with ``where``.
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
                f"{where}: payloads of version {missing[0]} may still wait, and no upcaster makes them version "
                f"{missing[0] + 1}: add upcasters={{{missing[0]}: …}}"
            )
        self.newest = newest
        self._upcasters = dict(upcasters)

    def upcast(self, payload: dict[str, Any], version: int) -> dict[str, Any]:
        """Return a ``payload`` of ``version`` in the newest version. Raises PayloadInvalid with the reason."""
        if version == self.newest:
            return payload
        if version > self.newest:
            raise PayloadInvalid(
                f"the payload has version {version}, but this process only knows versions up to {self.newest}"
            )
        payload = copy.deepcopy(payload)  # the event of the next attempt needs the original
        for step in range(version, self.newest):
            payload = self._step(payload, step)
        return payload

    def _step(self, payload: dict[str, Any], step: int) -> dict[str, Any]:
        upcaster = self._upcasters.get(step)
        if upcaster is None:
            raise PayloadInvalid(
                f"the payload has version {step}, and there is no upcaster to version {step + 1} any more"
            )
        try:
            upcast_payload = upcaster(payload)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise PayloadInvalid(
                f"the payload of version {step} cannot be upcast to version {step + 1}: {described(error)}"
            ) from error
        if not isinstance(upcast_payload, dict):
            raise PayloadInvalid(
                f"the upcaster of version {step} returned a {type(upcast_payload).__name__}, not a dict"
            )
        return upcast_payload
