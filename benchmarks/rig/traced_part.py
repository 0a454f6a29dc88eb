"""Runs a part of an installation whose traces are switched while it runs: SIGUSR1 switches them off, SIGUSR2 on.

    python -m benchmarks.rig.traced_part projector

Both signals send the spans that were made before. Then they add a byte to the file that ``SWITCHED`` in the environment
names. While traces are off, the process makes none and decides on none, but OpenTelemetry is imported.
"""

import os
import signal
from pathlib import Path
from types import FrameType
from typing import Final

from jobtape.cli.main import main
from jobtape.telemetry import setup, tracing

SWITCHED: Final = "JOBTAPE_BENCH_SWITCHED"

_made = None
"""What makes the spans, while traces are off."""


def _switch(number: int, _: FrameType | None) -> None:
    global _made  # noqa: PLW0603 - a process has one
    setup.flush()
    _made = tracing._spans or _made
    tracing._spans = _made if number == signal.SIGUSR2 else None
    with Path(os.environ[SWITCHED]).open("ab") as file:
        file.write(b".")


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, _switch)
    signal.signal(signal.SIGUSR2, _switch)
    main()
