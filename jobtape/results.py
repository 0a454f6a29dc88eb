"""Reads results that are handed on by reference, from the API at JOBTAPE_URL, a page at a time."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import closing
from typing import Any, Final

from jobtape.client.client import Client
from jobtape.client.sync.client import SyncClient
from jobtape.schemas.errors import JobtapeError
from jobtape.schemas.execution.results import ResultsReference
from jobtape.schemas.flows.references import NotFound, Reference

PAGE: Final = 500
NODES: Final = 100
"""Nodes that are named in one request."""
PATIENCE: Final = 60.0
"""Seconds during which a request is retried. An API that restarts should not fail a job that has run for long."""


async def pages(reference: ResultsReference) -> AsyncIterator[list[Any]]:
    """Yield the results in pages, as JSON. Raises ApiError, and JobtapeError if some are not kept any more."""
    reading = _Reading(reference)
    async with Client(patience=PATIENCE) as client:
        while (query := reading.query()) is not None:
            yield reading.take((await client.request("GET", reading.path, params=query)).content)
    reading.check()


def pages_sync(reference: ResultsReference) -> Iterator[list[Any]]:
    """Yield the results as ``pages`` does, and block the thread. Raises TypeError on an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise TypeError("results are read over HTTP, which would block the event loop: use `async for` here")
    reading = _Reading(reference)
    with closing(SyncClient(patience=PATIENCE)) as client:
        while (query := reading.query()) is not None:
            yield reading.take(client.request("GET", reading.path, params=query).content)
    reading.check()


class _Reading:
    """How far the results of a reference are read."""

    def __init__(self, reference: ResultsReference) -> None:
        self.path = f"/jobs/{reference.flow}/results"
        self._reference = reference
        self._nodes = reference.nodes
        self._after = self._count = 0

    def query(self) -> list[tuple[str, str]] | None:
        """Return the query of the next request; None if everything is read."""
        if not self._nodes:
            return None
        names = ",".join(name for name, _ in self._nodes[:NODES])
        return [
            ("nodes", names),
            ("after", str(self._after)),
            ("limit", str(PAGE)),
            ("as_of", str(self._reference.as_of)),
        ]

    def take(self, content: Mapping[str, Any]) -> list[Any]:
        """Return the results in an answer."""
        paths = dict(self._nodes[:NODES])
        found = [_part(item["result"], item["node"], paths[item["node"]]) for item in content["items"]]
        self._count += len(found)
        self._after = content["next"] or 0
        if content["next"] is None:
            self._nodes = self._nodes[NODES:]
        return found

    def check(self) -> None:
        """Raise JobtapeError if there were fewer results than the reference says."""
        if self._count != self._reference.count:
            raise JobtapeError(
                f"{self._count} of {self._reference.count} results of the flow {self._reference.flow} are kept "
                "(JOBTAPE_JOB_RETENTION): submit the flow again"
            )


def _part(result: Any, node: str, path: str) -> Any:
    try:
        return None if result is None else Reference(node, path).value_in(result)
    except NotFound as fault:
        raise JobtapeError(str(fault)) from None
