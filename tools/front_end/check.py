"""``python -m tools.front_end.check lint`` and ``types``: Biome and TypeScript on the dashboard's modules.

``make lint types`` runs it. Where Node or the packages cannot be had, it says so and checks nothing, because all other
checks and the tests need neither.
"""

import sys
from typing import Final

from tools.front_end.npm import NpmError, run

CONFIGURATION: Final = "--config-path=tools/front_end"
MODULES: Final = "producer/dashboard/static"
CHECKS: Final = {
    "lint": ("biome", "check", CONFIGURATION, "--error-on-warnings", MODULES),
    "format": ("biome", "check", CONFIGURATION, "--write", MODULES),
    "types": ("tsc", "--project", "tools/front_end/tsconfig.json"),
}


def main(name: str) -> int:
    """Run one check, and return the exit code for the shell."""
    try:
        return run(*CHECKS[name])
    except NpmError as error:
        print(f"NOT CHECKED: the dashboard's front end ({name}). {error}", file=sys.stderr)
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
