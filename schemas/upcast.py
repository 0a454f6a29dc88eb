"""Old event shapes lifted to the present one, one version at a time.

An upcaster takes the parsed CloudEvent of version *n* and returns that of *n + 1*; it never changes its argument. The
tape keeps what was written; only what is read is lifted.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from jobtape.schemas.errors import UnreadableEvent

Upcaster = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def _order_says_its_payloads_version(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """1 to 2. Before, a job type's payloads were all of one version."""
    data = raw.get("data")
    order = data.get("order") if isinstance(data, Mapping) else None
    if data is None or not isinstance(order, Mapping):
        return raw
    return {**raw, "data": {**data, "order": {**order, "payload_version": 1}}}


CURRENT_VERSION: Final = 2
UPCASTERS: Final[dict[int, Upcaster]] = {1: _order_says_its_payloads_version}


def upcast(raw: Mapping[str, Any], upcasters: Mapping[int, Upcaster] = UPCASTERS) -> Mapping[str, Any]:
    """``raw`` in the newest shape that ``upcasters`` lead to. Raises UnreadableEvent for a version from the future.

    An event without ``schemaversion`` is of version 1.
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
            # An upcaster may trust the shape of its version; a message need not have it.
            raise UnreadableEvent(f"not an event of schemaversion {step}: {error!r}"[:200]) from None
    return raw


def newest(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """``raw`` for whoever hands it on: lifted, or as it is when that is beyond this program."""
    try:
        return upcast(raw)
    except UnreadableEvent:
        return raw
