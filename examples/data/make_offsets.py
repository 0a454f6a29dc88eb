"""Makes ``utc_offsets.csv.gz`` from this machine's own time-zone database.

``python -m examples.data.make_offsets [FILE]`` writes what every time zone's clocks showed at noon UTC on the first
of each month of 2001 to 2020: about 140,000 rows. The same database gives the same bytes. Needs the files of the
system's database (``zoneinfo.TZPATH``, on Debian the package tzdata), ``zone.tab`` among them.
"""

import csv
import gzip
import io
import sys
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_name("utc_offsets.csv.gz")
YEARS = range(2001, 2021)
HEADER = ("zone", "country", "latitude", "longitude", "time", "unix", "offset", "dst", "abbreviation")


class Place(NamedTuple):
    """A line of zone.tab: ISO 3166 code and position, in degrees as zone.tab has them (whole minutes or seconds)."""

    country: str
    latitude: float
    longitude: float


def places(database: Path) -> dict[str, Place]:
    """Where each zone is; many (Etc/UTC, old names) are not in it."""
    found = {}
    for line in (database / "zone.tab").read_text().splitlines():
        if not line.startswith("#"):
            country, position, zone = line.split("\t")[:3]
            split = max(position.rfind("+"), position.rfind("-"))
            found[zone] = Place(country, _degrees(position[:split], 3), _degrees(position[split:], 4))
    return found


def _degrees(text: str, width: int) -> float:
    """``+4230`` or ``-0781130`` (sign and degrees in ``width`` characters, minutes, seconds) in degrees."""
    degrees, minutes, seconds = int(text[1:width]), int(text[width : width + 2]), int(text[width + 2 :] or 0)
    return round((degrees + minutes / 60 + seconds / 3600) * (-1 if text[0] == "-" else 1), 5)


def rows(database: Path) -> Iterator[tuple[object, ...]]:
    """A row for each zone and month; offsets in seconds east of UTC, missing values None."""
    where = places(database)
    months = [datetime(year, month, 1, 12, tzinfo=UTC) for year in YEARS for month in range(1, 13)]
    for name in sorted(zoneinfo.available_timezones() - {"localtime", "Factory"}):
        zone = zoneinfo.ZoneInfo(name)
        for moment in months:
            local = moment.astimezone(zone)
            offset, dst = local.utcoffset() or timedelta(), local.dst() or timedelta()
            yield (
                name,
                *(where.get(name) or (None, None, None)),
                moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
                int(moment.timestamp()),
                int(offset.total_seconds()),
                int(dst.total_seconds()),
                # "+03" is what the database writes where a place has no abbreviation of its own.
                None if (local.tzname() or "+")[0] in "+-" else local.tzname(),
            )


def main() -> int:
    """Write the file that is named, or the one that ships; exit code 1 when this machine has no database."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    database = next((Path(folder) for folder in zoneinfo.TZPATH if (Path(folder) / "zone.tab").exists()), None)
    if database is None:
        print(f"no zone.tab in {', '.join(zoneinfo.TZPATH)}: install the system's tzdata", file=sys.stderr)
        return 1
    # No name and no time in the gzip header: the same rows give the same bytes.
    with (
        target.open("wb") as raw,
        gzip.GzipFile("", "wb", 9, raw, mtime=0) as zipped,
        io.TextIOWrapper(zipped, encoding="utf-8", newline="") as text,
    ):
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(rows(database))
    print(f"{target}: {target.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
