"""What each part may do on the broker, as RabbitMQ's permissions: three regular expressions for names of exchanges and
queues.

*Configure* is for declaring and deleting, *write* for publishing and for binding a queue, *read* for consuming and for
binding to an exchange. To declare a queue with a dead-letter exchange, a user also needs *read* on the queue and
*write* on that exchange. A rule for a name applies both to the exchange and to the queue with this name.
"""

import re
from dataclasses import dataclass
from typing import Final

from jobtape.schemas.topology import Topology

_UNNAMED: Final = r"amq\.gen-.*"
"""The names that the broker gives to queues: of notices in an API, of signs of life in a projector."""
_DEFAULT: Final = r"amq\.default"
"""The default exchange, which leads to every queue."""


@dataclass(frozen=True, slots=True)
class Permissions:
    """The three regular expressions of a user."""

    configure: str
    write: str
    read: str


def permissions_of_parts(topology: Topology) -> dict[str, Permissions]:
    """Return the least that each part needs in the namespace of ``topology``, by the name of the part."""
    space = re.escape(topology.namespace)

    def any_of(names: str, *others: str) -> str:
        ours = (rf"{space}\.({'|'.join(names.split())})",) if names else ()
        return f"^({'|'.join((*ours, *others))})$"

    # Each of them declares again what is missing. Only a projector and `jobtape init` create the tape.
    declared = r"events results committed workers dead cancels run\..+"
    bound = r"log dead cancels run\..+"
    queues = r"sub\..+ hear\..+"
    return {
        "api": Permissions(
            any_of(declared, _UNNAMED),
            any_of(f"events {bound}", _UNNAMED),
            any_of(r"events committed dead run\..+", _UNNAMED),
        ),
        "worker": Permissions(
            any_of(declared),
            any_of(f"events workers {bound}"),
            any_of(r"events dead cancels run\..+"),
        ),
        "projector": Permissions(
            any_of(f"{declared} log", _UNNAMED),
            # A replay publishes to the queue that it was asked to, by the default exchange.
            any_of(f"events results committed workers {bound}", _UNNAMED, _DEFAULT),
            any_of(f"events workers {bound}", _UNNAMED),
        ),
        "subscriber": Permissions(any_of(queues), any_of(f"{queues} dropped"), any_of(f"results {queues}")),
    }
