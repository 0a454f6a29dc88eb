"""Play it again: the tape rebuilt, replayed, run in the shade, exported and imported, under load and with kills.

    .venv/bin/python -m benchmarks.tape_suite [--broker B] [--database D] [--jobs 10000] [--only NAME,…]

- ``rebuild``: while 200 jobs a second keep arriving, again and again; no read fails or goes back in time, the new view
  equals the old one and the tape, field by field.
- ``kills``: the process that works on a rebuild, a replay and a shadow run is SIGKILLed in the middle; each goes on
  and ends right. The replay may repeat what had no confirm.
- ``replay``: all events to a queue; nothing is executed, the tape does not grow.
- ``shadow``: the handlers have changed for one payload in ten; exactly those are named.
- ``lost``: the database is lost; the view is folded from the tape alone, and equals it.
- ``backup``: exported, imported (and killed meanwhile) into an empty installation: the same view without its cursors.

Rates are printed. Exits 0 only if everything held.
"""

import sys
import time
from collections.abc import Callable

from benchmarks.chunks import messages_per_chunk
from benchmarks.installation_options import options, place
from benchmarks.tape import backup as again_backup
from benchmarks.tape import rebuild as again_rebuild
from benchmarks.tape import replay_and_shadow as again_jobs
from benchmarks.tape.rig import Scene

STEPS: dict[str, Callable[[Scene], None]] = {
    "rebuild": again_rebuild.under_load,
    "kills": again_jobs.kills,
    "replay": again_jobs.replay,
    "shadow": again_jobs.shadow,
    "lost": again_rebuild.database_lost,
    "backup": again_backup.there_and_back,
}


def main() -> int:
    """Run the steps; the exit status."""
    parser = options(__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--only", default=",".join(STEPS))
    wanted = parser.parse_args()
    with place(wanted, jobs="benchmarks.tape.handlers") as (broker, made):
        scene = Scene(made, wanted.jobs)
        try:
            scene.begin()
            print(messages_per_chunk(broker, made.topology.log.name, scene.tape_length), flush=True)
            for name in wanted.only.split(","):
                began = time.monotonic()
                STEPS[name](scene)
                print(f"{name}: held, in {time.monotonic() - began:.1f} s", flush=True)
        finally:
            scene.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
