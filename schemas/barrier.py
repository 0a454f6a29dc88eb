"""A barrier: a message on the tape that is no event. What has read it has read everything published before it.

It moves the checkpoint and is noted beside it, and is in no history. Each process counts its own barriers up from 1.
"""

from jobtape.schemas import plainjson
from jobtape.schemas.errors import UnreadableEvent


def barrier_body(process: str, seq: int) -> bytes:
    """The message body of the process's barrier number ``seq``."""
    return plainjson.dumps({"process": process, "seq": seq})


def read_barrier(body: bytes) -> tuple[str, int]:
    """(process, seq) of a barrier. Raises UnreadableEvent."""
    try:
        raw = plainjson.loads(body)
    except plainjson.NotJson as error:
        raise UnreadableEvent(f"a barrier that is not JSON: {error}") from None
    match raw:
        case {"process": str(process), "seq": int(seq)} if process and len(process) <= 64 and 0 < seq < 2**63:
            return process, seq
    raise UnreadableEvent("a barrier without process and seq")
