"""Runs a server tied to the process that asked for it, so that a crashed parent leaves nothing running.

Run as a script: `python tether.py '<JSON>'` with

    main        the server's command line (a list); the tether lives as long as it does
    companions  command lines that run beside it and are killed after it (default: none)
    stop        the signal number that asks `main` to end (default: SIGTERM)
    grace       seconds it gets after that signal before SIGKILL (default: 30)
    user        run everything as this user; only root may (default: as we are)
    log         file that gets what they print (default: discarded)

The parent holds the other end of stdin: when that closes, on purpose or because the parent died, the server is asked
to end. A pipe and not PR_SET_PDEATHSIG alone, which fires when the *thread* that started the child ends. The first
line of stdout is the JSON list of the process ids, `main`'s last. The exit code is `main`'s, 128 + n after signal n.

Standard library only: it starts a fresh interpreter that shares nothing with the parent.
"""

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def die_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """In the child, before exec: get signal `number` when the parent dies. Linux only, elsewhere nothing.

    Only for a child of the parent's main thread: Linux means the thread that made the child.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, number)


def launch(command: list[str], user: str | None, output: IO[bytes]) -> subprocess.Popen[bytes]:
    """Starts one process; raises OSError when it can't be executed, KeyError when there is no such user."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        user=user,
        group=user,
        extra_groups=[] if user else None,
        preexec_fn=die_with_parent,  # noqa: PLW1509 (this process has one thread)
    )


def stop(process: subprocess.Popen[bytes], signal_number: int, grace: float) -> None:
    """Asks, waits `grace` seconds, then kills."""
    process.send_signal(signal_number)
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wake_on_signals() -> int:
    """A descriptor that becomes readable, with the signals' numbers, when a child ends or someone asks us to end."""
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, *ENDING):
        # A handler that does nothing and not SIG_IGN, which the server would inherit.
        signal.signal(number, lambda *_: None)
    return wake_read


def asked_to_end(wake: int) -> bool:
    """Waits until something happens; true when the parent let go or a signal asked us to end."""
    ready, _, _ = select.select([sys.stdin, wake], [], [])
    signals = os.read(wake, 4096) if wake in ready else b""
    let_go = sys.stdin in ready and not os.read(sys.stdin.fileno(), 4096)
    return let_go or any(number in signals for number in ENDING)


def hold(spec: dict[str, Any]) -> int:
    """Runs what `spec` (see above) says until `main` ends or stdin closes; returns the exit code."""
    wake = wake_on_signals()
    running: list[subprocess.Popen[bytes]] = []
    with Path(spec.get("log") or os.devnull).open("ab") as output:
        try:
            for command in [*spec.get("companions", []), spec["main"]]:
                running.append(launch(command, spec.get("user"), output))
            main = running[-1]
            print(json.dumps([process.pid for process in running]), flush=True)
            while main.poll() is None:
                if asked_to_end(wake):
                    stop(main, spec.get("stop", signal.SIGTERM), spec.get("grace", 30.0))
            return main.returncode if main.returncode >= 0 else 128 - main.returncode
        finally:
            for process in reversed(running):
                if process.poll() is None:
                    process.kill()
                    process.wait()


if __name__ == "__main__":
    sys.exit(hold(json.loads(sys.argv[1])))
