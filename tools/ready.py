"""Waits until an application says that it is ready."""

import json
import time
from collections.abc import Callable

import httpx


class NotReadyError(Exception):
    """It ended or wasn't ready in time; the text says which part was not, as far as it said."""


def base_url(host: str, port: int) -> str:
    """The address to reach a server at that listens on `host`:`port`; one that listens everywhere is also here."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, host)  # noqa: S104 (not a bind)
    if ":" in reachable and not reachable.startswith("["):
        reachable = f"[{reachable}]"
    return f"http://{reachable}:{port}"


def wait_until_ready(base: str, key: str | None, alive: Callable[[], bool], limit: float) -> None:
    """Returns once GET /health/ready answers 200; raises NotReadyError when `alive()` is false or after `limit` s."""
    deadline = time.monotonic() + limit
    headers = {"authorization": f"Bearer {key}"} if key else {}
    last = "it doesn't answer"
    # trust_env off: a proxy has no business with an address of this machine.
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
                raise NotReadyError("The application ended before it was ready: its last lines above say why.")
            if time.monotonic() > deadline:
                raise NotReadyError(f"The application is not ready after {limit:g} s: {last}")
            time.sleep(0.1)


def job_types(base: str, key: str | None) -> dict[str, str]:
    """Name -> queue of the job types that the application at `base` knows; none when it doesn't answer."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        answer = httpx.get(f"{base}/job-types", headers=headers, timeout=5.0, trust_env=False)
        return {str(one["name"]): str(one["queue"]) for one in answer.raise_for_status().json()["items"]}
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return {}


def reason(body: str) -> str:
    """One line of what /health/ready said: the parts that are not ready and why, otherwise the body itself."""
    try:
        parts = json.loads(body)["parts"]
        reasons = [f"{name}: {part['reason']}" for name, part in parts.items() if not part["ready"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        # Not from our application, or from a proxy before it.
        reasons = []
    return "; ".join(reasons) or " ".join(body.split())[:500] or "it doesn't say why"
