"""``make vendor``: copy the packages that browsers load to ``static/vendor``, with their licences and SHA-256 sums.

npm checks each package against the hash in ``package-lock.json``. The files import each other by relative paths: bare
names would need an import map, which is an inline script that the Content-Security-Policy forbids.
"""

import hashlib
import re
import shutil
import sys
from pathlib import Path
from typing import Final

from tools.clone import ROOT
from tools.front_end.npm import PACKAGES, NpmError, ensure_packages

VENDOR: Final = ROOT / "producer" / "dashboard" / "static" / "vendor"
SUMS: Final = "SHA256SUMS"
MODULES: Final = {
    "preact": ("preact/dist/preact.mjs", "preact.js"),
    "preact/hooks": ("preact/hooks/dist/hooks.mjs", "hooks.js"),
    "htm": ("htm/dist/htm.mjs", "htm.js"),
    "@preact/signals-core": ("@preact/signals-core/dist/signals-core.mjs", "signals-core.js"),
    "@preact/signals": ("@preact/signals/dist/signals.mjs", "signals.js"),
}
"""What a bare name imports: the file in the package, and its name here."""
PLOTS: Final = "uplot/dist/uPlot.iife.min.js"
"""A script that sets a global name. The package has no module that is minified."""
STYLES: Final = {"uplot.css": "uplot/dist/uPlot.min.css"}
TYPES: Final = {
    "preact.d.ts": 'export * from "preact";\n',
    "hooks.d.ts": 'export * from "preact/hooks";\n',
    "htm.d.ts": 'export { default } from "htm";\n',
    "signals.d.ts": 'export * from "@preact/signals";\n',
    "uplot.d.ts": 'export { default } from "uplot";\n',
}
"""What the type checker reads instead of the modules: the packages' own types, in ``node_modules``."""
LICENCES: Final = {"preact": "preact", "htm": "htm", "@preact/signals": "signals", "uplot": "uplot"}
"""Packages, and the names of their licences here. The two packages of signals have the same one."""
_IMPORT: Final = re.compile(r'(from|import)"([^".]+)"')
_BANNER: Final = re.compile(rb"/\*!.*?\*/\s*")
"""Names the package's page on the web. The licence is a file of its own."""
_SOURCE_MAP: Final = re.compile(r"\n?//# sourceMappingURL=\S+\s*$")


def vendored() -> dict[str, bytes]:
    """Return what ``static/vendor`` contains, by file name, made of the packages in ``node_modules``."""
    files = {name: _module(PACKAGES / path) for path, name in MODULES.values()}
    files["uplot.js"] = _BANNER.sub(b"", _module(PACKAGES / PLOTS)) + b"export default uPlot;\n"
    files |= {name: text.encode() for name, text in TYPES.items()}
    files |= {name: (PACKAGES / path).read_bytes() for name, path in STYLES.items()}
    for package, name in LICENCES.items():
        files[f"LICENSE-{name}.txt"] = (PACKAGES / package / "LICENSE").read_bytes()
    files[SUMS] = "".join(f"{sha256(content)}  {name}\n" for name, content in sorted(files.items())).encode()
    return files


def sha256(content: bytes) -> str:
    """Return the SHA-256 of ``content`` in hex digits."""
    return hashlib.sha256(content).hexdigest()


def _module(path: Path) -> bytes:
    text = _SOURCE_MAP.sub("\n", path.read_text())
    return _IMPORT.sub(lambda found: f'{found[1]}"./{MODULES[found[2]][1]}"', text).encode()


def main() -> int:
    """Return the exit code for the shell."""
    try:
        ensure_packages()
    except NpmError as error:
        print(error, file=sys.stderr)
        return 1
    files = vendored()
    shutil.rmtree(VENDOR, ignore_errors=True)
    VENDOR.mkdir(parents=True)
    for name, content in files.items():
        (VENDOR / name).write_bytes(content)
    print(f"{len(files)} files in {VENDOR.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
