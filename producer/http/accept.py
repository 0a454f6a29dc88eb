"""What a client would rather have: ``Accept`` with its q-values (RFC 9110, section 12.5.1)."""

from typing import Final

from fastapi import Request

_LONGEST: Final = 8192


def prefers(request: Request, media_type: str, to: str) -> bool:
    """Whether the client asks for ``media_type`` more than for ``to``, which is what it gets otherwise."""
    header = ",".join(request.headers.getlist("accept"))[:_LONGEST]
    return _quality(header, media_type) > _quality(header, to)


def _quality(header: str, media_type: str) -> float:
    """Of the most specific range that fits: the type itself, then ``text/*``, then ``*/*``."""
    main = media_type.partition("/")[0]
    rank = {media_type: 3, f"{main}/*": 2, "*/*": 1}
    best, quality = 0, 0.0
    for part in header.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if rank.get(name, 0) > best:
            best, quality = rank[name], _q(parameters)
    return quality


def _q(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(1.0, max(0.0, float(value)))
            except ValueError:
                return 0.0
    return 1.0
