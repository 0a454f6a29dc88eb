"""Run a server that ends when the process that asked for it ends.

Run as a script: ``python tether.py '<JSON>'`` with

    main        the server's command line (a list); this script ends with it
    companions  command lines that run beside it and are killed after it
    stop        the signal number that asks ``main`` to end
    grace       seconds from that signal to SIGKILL
    user        run everything as this user (only root may), or null
    log         the file for what they print
    keep        file descriptors that ``main`` inherits

The parent holds the other end of stdin. When that closes, because the parent wants it or has died, the server is asked
to end. PR_SET_PDEATHSIG alone does not do: it fires when the *thread* that started the child ends. The first line of
stdout is the process id of ``main``. The exit code is that of ``main``, 128 + n after signal n.

Standard library only: it runs in a new interpreter, where only this file is known.
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
    """In the child, before exec: ask for signal ``number`` when the parent dies. Does nothing except on Linux.

    Only for children of the parent's main thread: for Linux, the parent is the thread that made the child.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, number)


def launch(command: list[str], spec: dict[str, Any], output: IO[bytes], keep: list[int]) -> subprocess.Popen[bytes]:
    """Start one process. Raises OSError if it cannot be executed, KeyError if there is no such user."""
    user = spec["user"]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        user=user,
        group=user,
        extra_groups=[] if user else None,
        pass_fds=keep,
        preexec_fn=die_with_parent,  # noqa: PLW1509 (this process has one thread)
    )


def stop(process: subprocess.Popen[bytes], signal_number: int, grace: float) -> None:
    """Send the signal, wait ``grace`` seconds, then kill."""
    process.send_signal(signal_number)
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wake_on_signals() -> int:
    """Return a descriptor to read the numbers of signals from: a child ended, or this process is asked to end."""
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, *ENDING):
        # A handler that does nothing instead of SIG_IGN, which the server would inherit.
        signal.signal(number, lambda *_: None)
    return wake_read


def asked_to_end(wake: int) -> bool:
    """Wait until something happens. Return whether the parent closed stdin or a signal asked this process to end."""
    ready, _, _ = select.select([sys.stdin, wake], [], [])
    signals = os.read(wake, 4096) if wake in ready else b""
    closed = sys.stdin in ready and not os.read(sys.stdin.fileno(), 4096)
    return closed or any(number in signals for number in ENDING)


def hold(spec: dict[str, Any]) -> int:
    """Run ``spec`` (see above) until ``main`` ends or stdin closes. Return the exit code."""
    wake = wake_on_signals()
    running: list[subprocess.Popen[bytes]] = []
    with Path(spec["log"]).open("ab") as output:
        try:
            for command in spec["companions"]:
                running.append(launch(command, spec, output, []))
            main = launch(spec["main"], spec, output, spec["keep"])
            running.append(main)
            print(main.pid, flush=True)
            while main.poll() is None:
                if asked_to_end(wake):
                    stop(main, spec["stop"], spec["grace"])
            return main.returncode if main.returncode >= 0 else 128 - main.returncode
        finally:
            for process in reversed(running):
                if process.poll() is None:
                    process.kill()
                    process.wait()


if __name__ == "__main__":
    sys.exit(hold(json.loads(sys.argv[1])))
