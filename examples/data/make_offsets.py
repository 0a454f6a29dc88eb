"""Creates ``utc_offsets.csv.gz`` from the time-zone database of the package tzdata, a development dependency.

``python -m examples.data.make_offsets [FILE]`` writes the local time of every time zone at noon UTC on the first of
each month from 2001 to 2020: about 140,000 rows. The same database gives the same rows. The machine's own database is
not used.
"""

import csv
import gzip
import io
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

FILE = Path(__file__).with_name("utc_offsets.csv.gz")
YEARS = range(2001, 2021)
HEADER = ("zone", "country", "latitude", "longitude", "time", "unix", "offset", "dst", "abbreviation")


class Location(NamedTuple):
    """A time zone's country (ISO 3166) and its position in degrees, exact to minutes or seconds."""

    country: str
    latitude: float
    longitude: float


def locations(database: Traversable) -> dict[str, Location]:
    """Return the location of each zone, from zone.tab. Many zones have none (Etc/UTC, old names)."""
    found = {}
    for line in (database / "zone.tab").read_text().splitlines():
        if not line.startswith("#"):
            country, position, zone = line.split("\t")[:3]
            split = max(position.rfind("+"), position.rfind("-"))
            found[zone] = Location(country, _degrees(position[:split], 3), _degrees(position[split:], 4))
    return found


def _degrees(text: str, width: int) -> float:
    """Convert ``+4230`` or ``-0781130`` to degrees: sign and degrees in ``width`` characters, minutes, seconds."""
    degrees, minutes, seconds = int(text[1:width]), int(text[width : width + 2]), int(text[width + 2 :] or 0)
    return round((degrees + minutes / 60 + seconds / 3600) * (-1 if text[0] == "-" else 1), 5)


def rows() -> Iterator[tuple[object, ...]]:
    """Yield a row for each zone and month; offsets in seconds east of UTC, missing values None."""
    package = resources.files("tzdata")
    database, names = package / "zoneinfo", (package / "zones").read_text().split()
    known = locations(database)
    months = [datetime(year, month, 1, 12, tzinfo=UTC) for year in YEARS for month in range(1, 13)]
    for name in sorted(set(names) - {"localtime", "Factory"}):
        with database.joinpath(*name.split("/")).open("rb") as file:
            zone = ZoneInfo.from_file(file, key=name)
        for moment in months:
            local = moment.astimezone(zone)
            offset, dst = local.utcoffset() or timedelta(), local.dst() or timedelta()
            yield (
                name,
                *(known.get(name) or (None, None, None)),
                moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
                int(moment.timestamp()),
                int(offset.total_seconds()),
                int(dst.total_seconds()),
                # The database writes "+03" where a zone has no abbreviation.
                None if (local.tzname() or "+")[0] in "+-" else local.tzname(),
            )


def main() -> int:
    """Write the named file, by default the sample of these examples."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    # No name and no time in the gzip header: the same rows give the same bytes.
    with (
        target.open("wb") as raw,
        gzip.GzipFile("", "wb", 9, raw, mtime=0) as zipped,
        io.TextIOWrapper(zipped, encoding="utf-8", newline="") as text,
    ):
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(rows())
    print(f"{target}: {target.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
