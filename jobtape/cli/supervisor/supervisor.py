"""Runs API, worker and projector as child processes, for ``jobtape up``.

Each part has a process of its own, as in production. So a handler that uses all processor time, or kills its process,
does not affect other parts. A part that ends is restarted after a pause, which doubles each time. A part that ends with
code 2 before it was ever configured would do so every time, so the supervisor stops all parts. The other parts start
when the first one is configured, so wrong settings are reported once.

Stop order: API and worker stop first, at the same time. The projector stops last, so that it folds their last events.
"""

import asyncio
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Final

from jobtape.cli.errors import WRONG
from jobtape.cli.parts.signals import STOPPING, SignalHandler, end_at_once
from jobtape.cli.supervisor.child import Child, Output

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
STEADY: Final = 60.0
"""Seconds of running after which the restart pause of a part is reset."""
MARGIN: Final = 10.0
"""Seconds that parts have after the grace period for closing their connections."""
WORKING_PAUSE: Final = 1.0
"""Seconds: the longest restart pause of a worker that was configured. Most likely a job killed it, and after a second
time that job runs isolated."""
STOP_ORDER: Final = (("api", "worker"), ("projector",))


class Supervisor:
    """Starts, restarts and stops the parts.

    ``commands``: the command line of each part by its name (``api``, ``worker-1``, ``worker-2``). ``grace``: the grace
    period in seconds. ``variables``: additional environment variables by the name of the part.
    """

    def __init__(
        self,
        commands: Mapping[str, Sequence[str]],
        *,
        grace: float,
        output: Output,
        variables: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self._commands = commands
        self._variables = variables or {}
        self._grace = grace
        self._output = output
        self._children: dict[str, Child] = {}
        self._stop = asyncio.Event()
        self._code = 0
        self._keepers: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> int:
        """Run until SIGTERM or SIGINT, or until a part cannot start. Returns the exit code."""
        loop = asyncio.get_running_loop()
        signals = SignalHandler(self._on_first_signal, self._on_second_signal)
        for number in STOPPING:
            loop.add_signal_handler(number, signals.handle, number)
        self._start(next(iter(self._commands)))
        await self._stop.wait()
        await self._stop_children()
        await asyncio.gather(*self._keepers.values())
        self._output.note("stopped")
        return self._code

    def _on_first_signal(self, number: int) -> None:
        grace = f"running jobs may continue for {self._grace:g} s"
        self._output.note(f"{signal.Signals(number).name}: stopping; {grace}; a second signal ends it at once")
        self._stop.set()

    def _on_second_signal(self, number: int) -> None:
        for child in self._children.values():
            child.kill()
        end_at_once(number)

    def _start(self, name: str) -> None:
        if name not in self._keepers and not self._stop.is_set():
            self._keepers[name] = asyncio.create_task(self._keep(name), name=f"keep {name}")

    def _start_all(self) -> None:
        for name in self._commands:
            self._start(name)

    async def _keep(self, name: str) -> None:
        """Run one part and restart it when it ends, until the supervisor stops."""
        pause = FIRST_PAUSE
        was_configured = False
        while not self._stop.is_set():
            begun = time.monotonic()
            child = self._children[name] = await Child.start(
                name, self._commands[name], self._output, self._start_all, self._variables.get(name)
            )
            self._output.note(f"{name} is process {child.pid}")
            if self._stop.is_set():  # the stop signal came while this part was starting
                child.terminate()
            code = await child.ended()
            was_configured = was_configured or child.configured
            if self._stop.is_set():
                return
            if code == WRONG and not was_configured:
                self._code = WRONG
                self._stop.set()
                return
            self._start_all()
            if time.monotonic() - begun > STEADY:
                pause = FIRST_PAUSE
            if child.configured and _kind(name) == "worker":
                pause = min(pause, WORKING_PAUSE)
            self._output.note(f"{name} ended ({_how(code)}); starting it again in {pause:g} s")
            await self._pause(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return

    async def _stop_children(self) -> None:
        for kinds in STOP_ORDER:
            children = [child for name, child in self._children.items() if _kind(name) in kinds]
            for child in children:
                child.terminate()
            # A part that was never configured has nothing to finish.
            timeout = self._grace + MARGIN if self._code == 0 else MARGIN
            for child in await _still_running(children, timeout):
                self._output.note(f"{child.name} has not ended within {timeout:g} s: killing it")
                child.kill()


async def _still_running(children: Sequence[Child], seconds: float) -> list[Child]:
    waiting = {asyncio.ensure_future(child.ended()): child for child in children}
    if not waiting:
        return []
    _, late = await asyncio.wait(waiting, timeout=seconds)
    for task in late:
        task.cancel()
    return [waiting[task] for task in late]


def _kind(name: str) -> str:
    return name.partition("-")[0]


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
