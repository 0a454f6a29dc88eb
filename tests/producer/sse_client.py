"""A client of server-sent events that follows the standard, and also returns comments and keep-alives."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

TIMEOUT = 20.0


@dataclass(frozen=True)
class Block:
    """A block of the stream. ``data`` is decoded; None if the block has no data."""

    id: int | None
    event: str
    data: Any
    comment: str | None = None
    retry: int | None = None

    @property
    def event_id(self) -> str:
        """The id of the CloudEvent in ``data``."""
        found: str = self.data["id"]
        return found


class EventStream:
    """An open stream. ``last_id`` is the id of the last complete block: resume with it."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.last_id: int | None = None
        self._lines = answer.aiter_lines()

    async def next_block(self) -> Block | None:
        """Return the next block of any kind, or None at the end of the stream."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(TIMEOUT):
            async for line in self._lines:
                if not line:
                    return self._block(fields)
                name, _, value = line.partition(":")
                fields[name] = value.removeprefix(" ")
        return None

    async def next(self, *, control: bool = False) -> Block:
        """Return the next event, with ``control`` also ``hello`` and ``reset``."""
        while True:
            block = await self.next_block()
            assert block is not None, "the stream has ended"
            if block.data is not None and (control or block.event not in ("hello", "reset")):
                return block

    async def rest(self) -> list[Block]:
        """Return all blocks until the server ends the stream."""
        found = []
        while (block := await self.next_block()) is not None:
            found.append(block)
        return found

    def _block(self, fields: Mapping[str, str]) -> Block:
        if "id" in fields:
            self.last_id = int(fields["id"])
        return Block(
            id=int(fields["id"]) if "id" in fields else None,
            event=fields.get("event", "message"),
            data=json.loads(fields["data"]) if "data" in fields else None,
            comment=fields.get(""),
            retry=int(fields["retry"]) if "retry" in fields else None,
        )


@asynccontextmanager
async def open_stream(url: str, *, last_id: int | None = None, **headers: str) -> AsyncIterator[EventStream]:
    """Open a stream. Its next block is ``hello``."""
    sent = {"Accept": "text/event-stream"} | headers
    if last_id is not None:
        sent["Last-Event-ID"] = str(last_id)
    timeout = httpx.Timeout(TIMEOUT, read=TIMEOUT)
    async with (
        httpx.AsyncClient(trust_env=False, verify=False, timeout=timeout) as client,
        client.stream("GET", url, headers=sent) as answer,
    ):
        assert answer.status_code == 200, (await answer.aread()).decode()
        yield EventStream(answer)
