"""Workers that are killed between outcome and ack: ``python -m tests.faults.dying_worker '<JSON>'``.

One worker runs after the other, each in a fork of this process, which has imported everything. A worker acknowledges
no first delivery of a job of the type ``split``, and kills itself with SIGKILL shortly after the first of them: the
outcomes are on the tape, and the broker delivers the jobs again. Each of them is a line ``hit`` on stdout, each kill a
line ``killed``. Ends when its stdin is closed.
"""

import asyncio
import json
import os
import select
import signal
import sys
import traceback
from typing import Any, Final

from jobtape.broker.queue_consumer import Delivery
from jobtape.consumer.worker.worker import Worker
from jobtape.schemas.events import decode_work
from tests.faults.part import make

DIES_WITH: Final = "split"
MORE: Final = 0.3
"""Seconds in which more jobs come to that point, before the worker kills itself."""
GIVEN_UP: Final = 3
"""Exit status of a worker that ended by itself."""


def main() -> None:
    """Run one worker after the other until stdin is closed."""
    spec = json.loads(sys.argv[1])
    while not _is_over():
        process = os.fork()
        if process == 0:
            _run(spec)
        while True:
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                break
            if _is_over(0.02):
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
                return
        if not os.WIFSIGNALED(status):
            sys.exit(f"a worker ended by itself: {status}")
        print("killed", flush=True)


def _is_over(timeout: float = 0.0) -> bool:
    return bool(select.select([sys.stdin], [], [], timeout)[0])


def _run(spec: dict[str, Any]) -> None:
    """Run a worker in this process, until it kills itself. Never returns."""
    ack = Delivery.ack

    async def die_or_ack(delivery: Delivery) -> None:
        if delivery.count == 0 and decode_work(delivery.body).data.job_type == DIES_WITH:
            os.write(sys.stdout.fileno(), b"hit\n")
            asyncio.get_running_loop().call_later(MORE, os.kill, os.getpid(), signal.SIGKILL)
        else:
            await ack(delivery)

    setattr(Delivery, "ack", die_or_ack)  # noqa: B010 - a fault that is put in
    try:
        asyncio.run(_work(spec))
    except BaseException:  # noqa: BLE001 - whoever reads the log has to see it
        traceback.print_exc()
    finally:
        os._exit(GIVEN_UP)


async def _work(spec: dict[str, Any]) -> None:
    worker = make(spec)
    assert isinstance(worker, Worker)
    await worker.run(asyncio.Event())


if __name__ == "__main__":
    main()
