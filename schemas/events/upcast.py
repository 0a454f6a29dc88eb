"""Turns events of old versions into the newest version, one version at a time.

An upcaster takes a parsed CloudEvent of version *n* and returns one of version *n + 1*. It never changes its argument.
Events on the tape stay as they are; readers upcast them.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from jobtape.schemas.errors import UnreadableEvent

Upcaster = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def _add_payload_version(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """From version 1 to 2: before, all payloads of a job type had the same version."""
    data = raw.get("data")
    order = data.get("order") if isinstance(data, Mapping) else None
    if data is None or not isinstance(order, Mapping):
        return raw
    return {**raw, "data": {**data, "order": {**order, "payload_version": 1}}}


CURRENT_VERSION: Final = 2
UPCASTERS: Final[dict[int, Upcaster]] = {1: _add_payload_version}


def upcast(raw: Mapping[str, Any], upcasters: Mapping[int, Upcaster] = UPCASTERS) -> Mapping[str, Any]:
    """Return ``raw`` in the newest version that ``upcasters`` lead to. Raises UnreadableEvent for a newer or invalid
    version.

    An event without ``schemaversion`` has version 1.
    """
    version = raw.get("schemaversion", 1)
    newest = max(upcasters, default=0) + 1
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise UnreadableEvent(f"schemaversion {str(version)[:40]!r} is no version")
    if version > newest:
        text = f"schemaversion {version} is newer than {newest}: update Jobtape, then rebuild the view"
        raise UnreadableEvent(text, newer=True)
    for step in range(version, newest):
        try:
            raw = {**upcasters[step](raw), "schemaversion": step + 1}
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            # An upcaster relies on the shape of its version, but any message can claim that version.
            raise UnreadableEvent(f"not an event of schemaversion {step}: {error!r}"[:200]) from None
    return raw


def newest(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return ``raw`` in the newest version, or unchanged if this program cannot read it."""
    try:
        return upcast(raw)
    except UnreadableEvent:
        return raw
