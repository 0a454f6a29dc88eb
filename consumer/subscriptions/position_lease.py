"""A named position in the committed history while this process holds its lease.

Theory of operation. One consumer a name is active; the lease (database time) says which. It is renewed by a thread of
its own, so that a loop's body may take as long as it likes, and may even block the event loop. What is done with is
written at once; what was only passed over, since nobody wants it, goes along with the renewals.
"""

import logging
import threading
from typing import Final

from jobtape.schemas.errors import ViewUnavailable
from jobtape.view.positions import Positions

log = logging.getLogger(__name__)

PREFIX: Final = "subscription."
"""Of the names of subscriptions among all positions."""


class PositionLease:
    """Every method blocks, but ``passed``. ``seconds``: the lease's length."""

    def __init__(self, positions: Positions, name: str, owner: str, seconds: float) -> None:
        self.ours = False
        """Whether we hold it, as far as we know."""
        self._positions = positions
        self._name = PREFIX + name
        self._owner = owner
        self._seconds = seconds
        self._cursor = 0
        self._ending = threading.Event()
        self._renewing: threading.Thread | None = None

    def exists(self) -> bool:
        """Whether it has begun."""
        return self._positions.read(self._name) is not None

    def begin(self, cursor: int) -> bool:
        """Let it begin behind ``cursor``; False when it has begun before."""
        return self._positions.begin(self._name, cursor)

    def take(self) -> int | None:
        """Hold it: where it stands, or None while another does. Raises ViewUnavailable."""
        self._stop_renewing()
        cursor = self._positions.take(self._name, self._owner, self._seconds)
        if cursor is not None:
            self.ours = True
            self._cursor = cursor
            self._ending = threading.Event()
            self._renewing = threading.Thread(target=self._renew, args=(self._ending,), name="position", daemon=True)
            self._renewing.start()
        return cursor

    def passed(self, cursor: int) -> None:
        """Nothing wanted is left up to ``cursor``; it is written with the next renewal."""
        self._cursor = max(self._cursor, cursor)

    def move(self, cursor: int) -> bool:
        """Write that everything up to ``cursor`` is done with; False when another has taken over. Raises
        ViewUnavailable.
        """
        self.passed(cursor)
        self.ours = self._positions.move(self._name, self._owner, cursor, self._seconds)
        return self.ours

    def release(self) -> None:
        """Let another have it at once, from where we are. Raises ViewUnavailable."""
        self._stop_renewing()
        if self.ours:
            self.ours = False
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
                self.ours = False
                return
