"""A client of server-sent events that reads as the standard says, and shows what else there is."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

PATIENCE = 20.0


@dataclass(frozen=True)
class Said:
    """A block of the stream: ``comment`` when there was one, ``data`` decoded, None without."""

    id: int | None
    event: str
    data: Any
    comment: str | None = None
    retry: int | None = None

    @property
    def fact(self) -> str:
        """The event's own id, of a CloudEvent."""
        found: str = self.data["id"]
        return found


class Hearing:
    """``last_id`` is where to resume; a block that was cut off is not there."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.last_id: int | None = None
        self._lines = answer.aiter_lines()

    async def block(self) -> Said | None:
        """The next block, whatever it is; None at the end of the stream."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(PATIENCE):
            async for line in self._lines:
                if not line:
                    return self._said(fields)
                name, _, value = line.partition(":")
                fields[name] = value.removeprefix(" ")
        return None

    async def next(self, *, control: bool = False) -> Said:
        """The next event, with ``control`` also ``hello`` and ``reset``."""
        while True:
            said = await self.block()
            assert said is not None, "the stream has ended"
            if said.data is not None and (control or said.event not in ("hello", "reset")):
                return said

    async def rest(self) -> list[Said]:
        """All that comes until the server ends the stream."""
        found = []
        while (said := await self.block()) is not None:
            found.append(said)
        return found

    def _said(self, fields: Mapping[str, str]) -> Said:
        if "id" in fields:
            self.last_id = int(fields["id"])
        return Said(
            id=int(fields["id"]) if "id" in fields else None,
            event=fields.get("event", "message"),
            data=json.loads(fields["data"]) if "data" in fields else None,
            comment=fields.get(""),
            retry=int(fields["retry"]) if "retry" in fields else None,
        )


@asynccontextmanager
async def hearing(url: str, *, last_id: int | None = None, **headers: str) -> AsyncIterator[Hearing]:
    """An open stream, at whose ``hello`` one is."""
    sent = {"Accept": "text/event-stream"} | headers
    if last_id is not None:
        sent["Last-Event-ID"] = str(last_id)
    timeout = httpx.Timeout(PATIENCE, read=PATIENCE)
    async with (
        httpx.AsyncClient(trust_env=False, verify=False, timeout=timeout) as client,
        client.stream("GET", url, headers=sent) as answer,
    ):
        assert answer.status_code == 200, (await answer.aread()).decode()
        yield Hearing(answer)
