"""Keeps a child that ``os.fork`` made of this process apart from it.

Theory of operation. ``fork`` copies everything but the other threads, and what it does not copy is shared: signals that
reach the child are written to the event loop of the parent, its copies of our sockets keep connections open that the
parent has ended, and a copy of the loop takes events away from it. So, before the child runs any code of the user's,
it loses what is ours: signal handlers of event loops and servers become Python's own, and each object that has asked
for it (``in_child``) is called to close its descriptors. Signals that come before that wait until it is done. And a
child that comes back from a handler into our code ends there (``end_child``).

Nothing is installed before the first ``install`` or ``in_child``; from then on it stays, since Python has no way to
undo ``os.register_at_fork``. A child that a C library forks, or that becomes another program (``subprocess``), is none
of this module's business.
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
"""Packages whose signal handlers ask the process that set them to stop, and mean nothing in its children."""

_owners: "WeakKeyDictionary[Any, Callable[[Any], None]]" = WeakKeyDictionary()
_blocked = threading.local()
_turn = threading.Lock()
_installed: list[int] = []


def install() -> None:
    """From now on children of this process have signal handlers of their own; again does nothing."""
    with _turn:
        if not _installed:
            _installed.append(os.getpid())
            os.register_at_fork(before=_before, after_in_parent=_unblock, after_in_child=_in_child)


def in_child(owner: Owner, leave: Callable[[Owner], None]) -> None:
    """Call ``leave(owner)`` in each child that is forked from here on, as long as ``owner`` exists here.

    It runs before any other code of the child, in its only thread: ``owner`` is to close what it shares with the
    parent (``close_here``), and not to use it.
    """
    install()
    _owners[owner] = leave


def close_here(*descriptors: int) -> None:
    """Close them for this process alone. Each number stays taken, by the null device: whatever object still has it, and
    closes it later, closes nothing else. Below 0: closed already.
    """
    still_open = [descriptor for descriptor in descriptors if descriptor >= 0]
    if not still_open:
        return
    try:
        null = os.open(os.devnull, os.O_RDWR)
    except OSError:  # no descriptor is left, or no such device
        for descriptor in still_open:
            with suppress(OSError):
                os.close(descriptor)
        return
    for descriptor in still_open:
        with suppress(OSError):
            os.dup2(null, descriptor, inheritable=False)
    os.close(null)


def leave_loop(loop: Any, *, sockets: bool) -> None:
    """In a child: let an asyncio event loop of the parent's run nothing more here, and touch nothing there.
    ``sockets``: whether all that the loop reads and writes is ours, and is closed too.

    Only asyncio's own loops can be left; of others nothing is known.
    """
    selector, ready = getattr(loop, "_selector", None), getattr(loop, "_ready", None)
    if selector is None or ready is None:
        return
    watched = selector.get_map() or {}
    if sockets:
        close_here(*(key.fd for key in watched.values()))
    for end in (getattr(loop, "_ssock", None), getattr(loop, "_csock", None)):  # with which threads wake it
        if end is not None:
            close_here(end.fileno())
    if hasattr(selector, "fileno"):  # epoll's registrations are shared with the parent: none may be removed here
        close_here(selector.fileno())
    ready.clear()  # the next one would be a callback of the parent's


def end_child(parent: int, error: BaseException | None = None) -> None:
    """End this process, unless it is ``parent`` itself: it is a child that a handler forked, and has come back from the
    handler. It ends as a program does, with ``error`` if that is what it came back with.
    """
    if os.getpid() != parent:
        _end(error)


def awaited(error: BaseException) -> BaseException:
    """What a child ends with that gave control back to an event loop of the parent's, which then raised ``error``."""
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return error
    return RuntimeError(
        "a forked child cannot await: the event loop is its parent's. End it with os._exit, or use asyncio.run in it"
    )


def _before() -> None:
    _blocked.mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def _unblock() -> None:
    mask, _blocked.mask = getattr(_blocked, "mask", None), None
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _in_child() -> None:
    try:
        _turn._at_fork_reinit()  # type: ignore[attr-defined]  # another thread may have held it
        _reset_signals()
        _forget_threads()
        for owner, leave in list(_owners.items()):
            try:
                leave(owner)
            except Exception:
                log.exception("a forked child could not close what is its parent's: %r", owner)
    finally:
        # SIGINT ends the child from here on, as the other signals do: raised as a KeyboardInterrupt within this hook it
        # would be lost, since Python ignores what a hook raises.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        _unblock()


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        while isinstance(handler, partial):
            handler = handler.func
        if callable(handler) and str(getattr(handler, "__module__", "")).partition(".")[0] in SERVERS:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def _forget_threads() -> None:
    """A child that a pool's thread forked would wait for this very thread at its end, and fail (Python up to 3.14)."""
    queues = getattr(sys.modules.get("concurrent.futures.thread"), "_threads_queues", None)
    if queues is not None:
        queues.clear()


def _end(error: BaseException | None) -> NoReturn:
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
