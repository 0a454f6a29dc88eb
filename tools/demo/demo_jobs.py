"""The jobs that the demo submits, and the check of each result: computed here, not with the examples' code."""

import csv
import email
import email.policy
import gzip
import hashlib
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from tools.clone import ROOT

DATA = ROOT / "examples" / "data"
PHOTO = "rocket.jpg"
TABLE = "utc_offsets.csv.gz"
BATCH = 1000
SECONDS = 5.0
SIZES = (48, 128, 320)
LETTER = {
    "to": "ada@example.org",
    "subject": "Ten seconds to go — Grüße",
    "text": "This mail went over SMTP.\nÄnd it kept its umlauts.\n",
}


class Wrong(Exception):
    """A result is not right. The text says how."""


@dataclass(frozen=True, slots=True)
class DemoJob:
    """A job to submit. It must end in ``state``.

    ``check`` takes the ended job as GET returns it. It returns in a few words what is right, or raises Wrong.
    """

    title: str
    type: str
    payload: dict[str, Any]
    check: Callable[[dict[str, Any]], str]
    state: str = "succeeded"
    labels: dict[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """Return the body for POST /jobs."""
        return {"type": self.type, "payload": self.payload, "labels": self.labels}


def single_jobs(files: Path, mails: Path) -> list[DemoJob]:
    """Return the single jobs: one of each example, and one that must fail."""
    return [
        DemoJob("the long task", "sleep.five", {"seconds": SECONDS}, _slept),
        DemoJob("profile of a CSV", "csv.profile", {"file": f"in/{TABLE}"}, _profiled),
        DemoJob(
            "thumbnails", "image.thumbnail", {"file": f"in/{PHOTO}", "sizes": [*SIZES]}, partial(_made, files=files)
        ),
        DemoJob("a mail", "email.send", dict(LETTER), partial(_mailed, mails=mails)),
        DemoJob("a sum", "add", {"x": 20, "y": 22}, partial(_summed, expected=42)),
        DemoJob("a forbidden file, must fail", "image.thumbnail", {"file": "../view.db"}, _refused, state="failed"),
    ]


def batch(labels: dict[str, str]) -> list[DemoJob]:
    """Return the thousand sums, all with these labels."""
    return [
        DemoJob(f"{n} + {n * n}", "add", {"x": n, "y": n * n}, partial(_summed, expected=n + n * n), labels=labels)
        for n in range(BATCH)
    ]


def expect(true: object, fault: str) -> None:
    """Raise Wrong with ``fault`` unless ``true``."""
    if not true:
        raise Wrong(fault)


def _summed(job: dict[str, Any], expected: int) -> str:
    expect(job["result"] == expected, f"the sum is {job['result']!r}, not {expected}")
    return f"the sum is {expected}"


def _slept(job: dict[str, Any]) -> str:
    seconds = job["result"]["seconds"]
    expect(SECONDS <= seconds < SECONDS + 2, f"it took {seconds} s, not {SECONDS}")
    expect(job["progress"] is not None and job["progress"]["fraction"] > 0.7, f"its last progress: {job['progress']}")
    return f"took {seconds:.2f} s"


def _refused(job: dict[str, Any]) -> str:
    error = job["error"] or {}
    expect(error.get("type") == "FileRefused", f"its error is {error}")
    expect("upload folder" in error["message"], f"its error says {error['message']!r}")
    return f"failed as it must: {error['type']}"


def _mailed(job: dict[str, Any], mails: Path) -> str:
    found = sorted((mails / "new").iterdir())
    expect(found, "no mail arrived")
    # There can be more than one if a worker died after it sent the mail. They have the same Message-ID.
    mails_read: list[Any] = [email.message_from_bytes(path.read_bytes(), policy=email.policy.default) for path in found]
    expect(len({mail["Message-ID"] for mail in mails_read}) == 1, f"{len(found)} different mails arrived")
    mail = mails_read[0]
    expect(mail["Message-ID"] == job["result"]["message_id"], f"another mail arrived: {mail['Message-ID']}")
    expect(job["id"] in mail["Message-ID"], "its Message-ID does not name the job")
    expect((mail["To"], mail["Subject"]) == (LETTER["to"], LETTER["subject"]), "its headers have changed")
    expect(mail.get_content().splitlines() == LETTER["text"].splitlines(), "its text has changed")
    return f"arrived, {found[0].stat().st_size} bytes"


def _made(job: dict[str, Any], files: Path) -> str:
    with Image.open(DATA / PHOTO) as photo:
        width, height = photo.size
    made = job["result"]["thumbnails"]
    expect(len(made) == len(SIZES), f"{len(made)} thumbnails instead of {len(SIZES)}")
    for size, one in zip(SIZES, made, strict=True):
        content = (files / one["name"]).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        expect((one["bytes"], one["sha256"]) == (len(content), digest), f"{one['name']} is not the file that it made")
        with Image.open(files / one["name"]) as image:
            image.load()
        expect(image.size == (one["width"], one["height"]), f"{one['name']} is {image.size}")
        other = min(width, height) * size / max(width, height)
        expect(max(image.size) == size and abs(min(image.size) - other) < 1, f"{image.size} has another shape")
    return "opened: " + ", ".join(f"{one['width']}x{one['height']}" for one in made)


def _profiled(job: dict[str, Any]) -> str:
    with gzip.open(DATA / TABLE, "rt", newline="") as file:
        header, *rows = csv.reader(file)
    result = job["result"]
    expect(result["rows"] == len(rows) >= 100_000, f"{result['rows']} rows instead of {len(rows)}")
    expect([column["name"] for column in result["columns"]] == header, "other columns")
    for found, values in zip(result["columns"], zip(*rows, strict=True), strict=True):
        present = [value for value in values if value]
        expected: dict[str, Any] = {"count": len(present), "missing": len(rows) - len(present)}
        if found["numbers"]:
            numbers = [float(value) for value in present]
            expected |= {"numbers": len(numbers), "min": min(numbers), "max": max(numbers)}
            mean = statistics.fmean(numbers)
            right = math.isclose(found["mean"], mean, rel_tol=1e-9)
            expect(right, f"{found['name']}: mean {found['mean']}, not {mean}")
        for what, value in expected.items():
            expect(found[what] == value, f"{found['name']}: {what} {found[what]!r}, not {value!r}")
    return f"{len(rows):,} rows x {len(header)} columns, every figure equal"
