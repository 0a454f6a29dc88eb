"""A barrier: a message on the tape that is no event. A reader that has passed it has read everything published before.

The projector stores it with the checkpoint; it is in no job's history. Each process numbers its barriers from 1.
"""

from jobtape.schemas import plainjson
from jobtape.schemas.errors import UnreadableEvent


def barrier_body(process: str, seq: int) -> bytes:
    """Return the message body of barrier number ``seq`` of a process."""
    return plainjson.dumps({"process": process, "seq": seq})


def read_barrier(body: bytes) -> tuple[str, int]:
    """Return (process, seq) of a barrier. Raises UnreadableEvent."""
    try:
        raw = plainjson.loads(body)
    except plainjson.NotJson as error:
        raise UnreadableEvent(f"a barrier that is not JSON: {error}") from None
    match raw:
        case {"process": str(process), "seq": int(seq)} if process and len(process) <= 64 and 0 < seq < 2**63:
            return process, seq
    raise UnreadableEvent("a barrier without process and seq")
