"""Separates a child that ``os.fork`` made of this process from its parent.

Theory of operation. A forked child has only the thread that forked it, but it shares everything else with its parent.
Signals to the child are written to the parent's event loop. Its copies of our sockets keep connections open that the
parent has closed. A copy of the event loop takes events away from the parent. So, before the child runs any user code,
the signal handlers of event loops and servers are reset to Python's own, and each object that was registered with
``on_fork`` closes its descriptors. Signals that arrive before that are delayed. A child that returns from a handler
into our code ends there (``exit_if_child``).

Nothing is installed before the first ``install`` or ``on_fork``; after that it stays, because ``os.register_at_fork``
cannot be undone. Children that a C library forks, and those that become another program (``subprocess``), are not
affected.
"""

import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, NoReturn, TypeVar
from weakref import WeakKeyDictionary

log = logging.getLogger(__name__)

Owner = TypeVar("Owner")

SERVERS: Final = frozenset({"asyncio", "uvloop", "uvicorn", "hypercorn", "gunicorn", "jobtape"})
"""Packages whose signal handlers stop the process that set them, and must not run in its children."""

_owners: "WeakKeyDictionary[Any, Callable[[Any], None]]" = WeakKeyDictionary()
_blocked = threading.local()
_lock = threading.Lock()
_installed: list[int] = []


def install() -> None:
    """Reset the signal handlers of all children that this process forks from now on. A second call does nothing."""
    with _lock:
        if not _installed:
            _installed.append(os.getpid())
            os.register_at_fork(before=_block_signals, after_in_parent=_unblock_signals, after_in_child=_detach_child)


def on_fork(owner: Owner, detach: Callable[[Owner], None]) -> None:
    """Call ``detach(owner)`` in each child that is forked from now on, as long as ``owner`` exists.

    It runs before any other code of the child, in its only thread. It must close what ``owner`` shares with the parent
    (see ``close_in_child``) and must not use it.
    """
    install()
    _owners[owner] = detach


def close_in_child(*descriptors: int) -> None:
    """Close file descriptors in this process only; negative ones are ignored.

    Each number stays open on the null device, so that an object that closes its descriptor later closes nothing else.
    """
    still_open = [descriptor for descriptor in descriptors if descriptor >= 0]
    if not still_open:
        return
    try:
        null = os.open(os.devnull, os.O_RDWR)
    except OSError:  # no descriptor is free, or there is no such device
        for descriptor in still_open:
            with suppress(OSError):
                os.close(descriptor)
        return
    for descriptor in still_open:
        with suppress(OSError):
            os.dup2(null, descriptor, inheritable=False)
    os.close(null)


def detach_loop(loop: Any, *, sockets: bool) -> None:
    """In a child: prevent the parent's asyncio event loop from running or changing anything.

    ``sockets``: also close everything that the loop reads and writes, because all of it is ours. Loops that are not
    asyncio's own are left as they are.
    """
    selector, ready = getattr(loop, "_selector", None), getattr(loop, "_ready", None)
    if selector is None or ready is None:
        return
    watched = selector.get_map() or {}
    if sockets:
        close_in_child(*(key.fd for key in watched.values()))
    for end in (getattr(loop, "_ssock", None), getattr(loop, "_csock", None)):  # other threads wake the loop with them
        if end is not None:
            close_in_child(end.fileno())
    if hasattr(selector, "fileno"):  # the parent shares epoll's registrations: none may be removed here
        close_in_child(selector.fileno())
    ready.clear()  # these callbacks are the parent's


def exit_if_child(parent: int, error: BaseException | None = None, *, awaited: bool = False) -> None:
    """End this process unless its id is ``parent``: a handler forked it, and it returned from the handler.

    The process ends as a program does, with ``error`` if the handler raised one. ``awaited``: the child returned to its
    parent's event loop, which then raised ``error``; the child must not await.
    """
    if os.getpid() == parent:
        return
    if awaited and not isinstance(error, SystemExit | KeyboardInterrupt):
        error = RuntimeError(
            "a forked child cannot await, because the event loop is its parent's: end the child with os._exit, or use "
            "asyncio.run in it"
        )
    _exit(error)


def _block_signals() -> None:
    _blocked.mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def _unblock_signals() -> None:
    mask, _blocked.mask = getattr(_blocked, "mask", None), None
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _detach_child() -> None:
    try:
        _lock._at_fork_reinit()  # type: ignore[attr-defined]  # another thread may have held it
        _reset_signals()
        _forget_threads()
        for owner, detach in list(_owners.items()):
            try:
                detach(owner)
            except Exception:
                log.exception("a forked child could not close what it shares with its parent: %r", owner)
    finally:
        # From here on SIGINT ends the child, as the other signals do: raised as a KeyboardInterrupt within this hook it
        # would be lost, since Python ignores what a hook raises.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        _unblock_signals()


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        while isinstance(handler, partial):
            handler = handler.func
        if callable(handler) and str(getattr(handler, "__module__", "")).partition(".")[0] in SERVERS:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def _forget_threads() -> None:
    # A child that a pool's thread forked would wait at its end for this same thread, and fail (Python up to 3.14).
    queues = getattr(sys.modules.get("concurrent.futures.thread"), "_threads_queues", None)
    if queues is not None:
        queues.clear()


def _exit(error: BaseException | None) -> NoReturn:
    code = 0
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        if code and not isinstance(error.code, int):
            print(error.code, file=sys.stderr)
    elif error is not None:
        traceback.print_exception(error)
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    if isinstance(error, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code)
