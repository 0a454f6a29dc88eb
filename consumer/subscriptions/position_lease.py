"""A named position in the committed history, while this process holds its lease.

Theory of operation. One consumer of a name is active; the lease (in database time) says which. A thread renews it, so
the body of the loop may take long and may even block the event loop. The position is written at once when an event is
acknowledged. When events were only skipped by the filter, it is written with the next renewal.
"""

import logging
import threading

from jobtape.schemas.errors import ViewUnavailable
from jobtape.view.subscribers.positions import SUBSCRIPTION, Positions

log = logging.getLogger(__name__)


class PositionLease:
    """The position called ``name``. All methods but ``skip_to`` block; ``seconds`` is the length of the lease."""

    def __init__(self, positions: Positions, name: str, owner: str, seconds: float) -> None:
        self.held = False
        """Whether this process has the lease, as far as it knows."""
        self._positions = positions
        self._name = SUBSCRIPTION + name
        self._owner = owner
        self._seconds = seconds
        self._cursor = 0
        self._ending = threading.Event()
        self._renewing: threading.Thread | None = None

    def exists(self) -> bool:
        """Return whether the position exists."""
        return self._positions.read(self._name) is not None

    def create(self, cursor: int) -> bool:
        """Create the position at ``cursor``; return False when it exists already."""
        return self._positions.begin(self._name, cursor)

    def take(self) -> int | None:
        """Take the lease and return the cursor; None while another consumer has it. Raises ViewUnavailable."""
        self._stop_renewing()
        cursor = self._positions.take(self._name, self._owner, self._seconds)
        if cursor is not None:
            self.held = True
            self._cursor = cursor
            self._ending = threading.Event()
            self._renewing = threading.Thread(target=self._renew, args=(self._ending,), name="position", daemon=True)
            self._renewing.start()
        return cursor

    def skip_to(self, cursor: int) -> None:
        """Move the position up to ``cursor``, before which nothing is wanted; the next renewal writes it."""
        self._cursor = max(self._cursor, cursor)

    def move(self, cursor: int) -> bool:
        """Write ``cursor``; return False when another consumer has taken over. Raises ViewUnavailable."""
        self.skip_to(cursor)
        self.held = self._positions.move(self._name, self._owner, cursor, self._seconds)
        return self.held

    def release(self) -> None:
        """Write the position and release the lease, so that another consumer can continue. Raises ViewUnavailable."""
        self._stop_renewing()
        if self.held:
            self.held = False
            self._positions.move(self._name, self._owner, self._cursor, self._seconds)
            self._positions.release(self._name, self._owner)

    def _stop_renewing(self) -> None:
        self._ending.set()
        if self._renewing is not None:
            self._renewing.join()
            self._renewing = None

    def _renew(self, ending: threading.Event) -> None:
        while not ending.wait(self._seconds / 3):
            try:
                held = self._positions.move(self._name, self._owner, self._cursor, self._seconds)
            except ViewUnavailable as error:
                log.warning("the lease of %s could not be renewed: %s", self._name, error)
                continue
            if not held:
                self.held = False
                return
