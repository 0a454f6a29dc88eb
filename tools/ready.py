"""Wait until an application is ready."""

import json
import time
from collections.abc import Callable

import httpx


class NotReadyError(Exception):
    """The application ended or was not ready in time. The text says which part was not, if the application did."""


def base_url(host: str, port: int) -> str:
    """Return the URL of a server that listens on ``host``:``port``, as seen from this machine."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, host)  # noqa: S104 (not a bind)
    if ":" in reachable and not reachable.startswith("["):
        reachable = f"[{reachable}]"
    return f"http://{reachable}:{port}"


def wait_until_ready(base: str, key: str | None, alive: Callable[[], bool], limit: float) -> None:
    """Return when GET /health/ready answers 200. Raises NotReadyError if ``alive()`` is false, or after ``limit`` s."""
    deadline = time.monotonic() + limit
    headers = {"authorization": f"Bearer {key}"} if key else {}
    last = "it does not answer"
    # trust_env=False: a proxy cannot reach an address of this machine.
    with httpx.Client(base_url=base, headers=headers, timeout=5.0, trust_env=False) as client:
        while True:
            try:
                answer = client.get("/health/ready")
            except httpx.TransportError:
                pass
            else:
                if answer.status_code == httpx.codes.OK:
                    return
                last = reason(answer.text)
            if not alive():
                raise NotReadyError("The application ended before it was ready: its last lines say why.")
            if time.monotonic() > deadline:
                raise NotReadyError(f"The application is not ready after {limit:g} s: {last}")
            time.sleep(0.1)


def reason(body: str) -> str:
    """Return in one line which parts are not ready and why, or the body itself if it does not name any."""
    try:
        parts = json.loads(body)["parts"]
        reasons = [f"{name}: {part['reason']}" for name, part in parts.items() if not part["ready"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        # Not from our application, or from a proxy before it.
        reasons = []
    return "; ".join(reasons) or " ".join(body.split())[:500] or "it does not say why"
