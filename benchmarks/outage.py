"""``jobtape up`` while its broker goes away: what readiness says, how soon all goes on, and whether anything is lost.

    .venv/bin/python -m benchmarks.outage [--seconds 30]

On a private RabbitMQ node of its own. Submits all the while, and notes what was accepted. Exits 0 only if readiness
named the broker within 5 s, everything went on within 10 s of its return, and the view equals the tape.
"""

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import httpx

from benchmarks.installation import installation
from tests.ledger import Ledger
from tools.brokers.node import PrivateNode

NAMED_WITHIN, BACK_WITHIN = 5.0, 10.0


def main() -> int:
    """Run it once; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory(prefix="jobtape-outage-") as folder:
        node = PrivateNode(Path(folder))
        node.start()
        os.environ["RABBITMQ_URL"] = node.url
        try:
            return _outage(node, seconds)
        finally:
            node.stop()


def _outage(node: PrivateNode, seconds: float) -> int:
    with installation() as made:
        made.start("up")
        made.wait_ready()
        ledger, ended = Ledger(), threading.Event()
        submitting = threading.Thread(target=_submit, args=(made.url, ledger, ended))
        submitting.start()
        try:
            began = time.monotonic()
            node.ctl("stop_app")
            named = _until(lambda: not _parts(made.url)["broker"]["ready"], 30)
            print(f"readiness names the broker after {named:.1f} s: {_parts(made.url)['broker']['reason']}")
            time.sleep(max(0.0, seconds - (time.monotonic() - began)))
            node.ctl("start_app")
            mark = len(ledger.ok)
            ready = _until(lambda: httpx.get(f"{made.url}/health/ready", timeout=5).status_code == 200, 60)
            accepting = _until(lambda: len(ledger.ok) > mark, 60)
            last = ledger.ok[-1]
            worked = _until(lambda: httpx.get(f"{made.url}/jobs/{last}").json().get("state") == "succeeded", 60)
            print(f"after its return: ready {ready:.1f} s, and accepting {accepting:.1f} s, and worked {worked:.1f} s")
        finally:
            ended.set()
            submitting.join()
        store = made.store()
        wait = lambda: all((job := store.job(each)) is not None and job.final for each in ledger.ok)  # noqa: E731
        _until(wait, 60)
        report = anyio.run(made.checker().check, store, ledger)
        store.close()
        print(f"accepted {len(ledger.ok)}, unknown {len(ledger.unknown)}, refused {len(ledger.refused)}; {report}")
    return 1 if report.problems or named > NAMED_WITHIN or ready + accepting + worked > BACK_WITHIN else 0


def _submit(url: str, ledger: Ledger, ended: threading.Event) -> None:
    with httpx.Client(base_url=url, timeout=30) as client:
        while not ended.wait(0.02):
            answer = client.post("/jobs", json={"type": "add", "payload": {"x": 1, "y": 2}})
            if answer.status_code == 202:
                ledger.ok.append(answer.json()["id"])
            else:
                # Without an idempotency key the client doesn't know the id of what may have been accepted.
                ledger.refused.append(str(answer.status_code))


def _parts(url: str) -> dict[str, dict[str, str]]:
    parts: dict[str, dict[str, str]] = httpx.get(f"{url}/health/ready", timeout=5).json()["parts"]
    return parts


def _until(condition: Callable[[], bool], limit: float) -> float:
    """Seconds until it holds. Raises TimeoutError."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > limit:
            raise TimeoutError(f"not within {limit:g} s")
        time.sleep(0.05)
    return time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
