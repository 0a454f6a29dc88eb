"""Handlers that still run although the outcomes of their jobs are published, or their deliveries were given back. Each
one keeps its slot until it ends."""

import logging
import time
from collections.abc import Callable

from jobtape.consumer.worker.execution import Execution

log = logging.getLogger(__name__)

LOG_AFTER = 5.0
"""Seconds after its outcome at which a stuck handler is logged."""
REPORT_AFTER = 1.0
"""Seconds after which stuck handlers in all slots are reported as the worker's fault."""
GIVE_UP_AFTER = 30.0
"""Seconds after which a worker ends when all its slots have stuck handlers."""


class StuckHandlers:
    """The stuck handlers of a worker with ``slots`` slots."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._since: dict[Execution, float] = {}
        self._logged: set[Execution] = set()
        self._all_since: float | None = None
        """Since when all slots have stuck handlers."""

    def __len__(self) -> int:
        return len(self._since)

    def add(self, execution: Execution, on_end: Callable[[], None]) -> None:
        """Add an execution whose handler still runs, and call ``on_end`` when it has ended."""
        assert execution.handler is not None
        self._since[execution] = time.monotonic()
        if len(self) >= self._slots:
            self._all_since = time.monotonic()

        def ended(_: object) -> None:
            del self._since[execution]
            self._all_since = None
            if execution in self._logged:
                self._logged.remove(execution)
                log.warning("the handler of job %s has ended: its slot is free again", execution.event.subject)
            on_end()

        execution.handler.add_done_callback(ended)

    @property
    def fault(self) -> str | None:
        """The reason why no slot becomes free, None while one may."""
        if self._all_for() < REPORT_AFTER:
            return None
        return (
            f"every slot ({self._slots}) is taken by a handler that does not end although its job is settled: "
            f"the worker ends after {GIVE_UP_AFTER:g} s of that and has to be started again; a handler with "
            "isolate=True can be ended"
        )

    def check(self) -> bool:
        """Log new stuck handlers. Return whether the worker should end."""
        now = time.monotonic()
        for execution, since in self._since.items():
            if now - since >= LOG_AFTER and execution not in self._logged:
                self._logged.add(execution)
                log.warning(
                    "the handler of job %s (%s) still runs %.0f s after its job has ended, and keeps its slot: %d of "
                    "%d worker slots are blocked like this; use isolate=True for handlers that may not end",
                    execution.event.subject,
                    execution.order.type,
                    now - since,
                    len(self),
                    self._slots,
                )
        return self._all_for() >= GIVE_UP_AFTER

    def _all_for(self) -> float:
        return 0.0 if self._all_since is None else time.monotonic() - self._all_since
