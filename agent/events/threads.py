"""Threads of the manager, and whose turn it is to touch the loop's state."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from threading import get_ident

CLOSED = -1


class Owner:
    """Which thread runs the loop: ``ident``, 0 while none does, CLOSED once the manager is closed.

    The loop's state has no locks. While a loop runs, it belongs to the loop's thread; before and after, to whoever
    builds it up.
    """

    __slots__ = ("ident",)

    def __init__(self) -> None:
        self.ident = 0

    def foreign(self) -> bool:
        """True on another thread than the one that runs the loop now."""
        return self.ident > 0 and self.ident != get_ident()

    def check(self, what: str) -> None:
        """RuntimeError if ``what`` may not be called here and now. Hot callers look at ``ident`` first."""
        if self.ident == CLOSED:
            raise RuntimeError("the event manager is closed")
        if self.ident and self.ident != get_ident():
            raise RuntimeError(f"{what}() belongs to the loop's thread: hand it over with call_soon_threadsafe()")


def start_thread(name: str, target: Callable[..., object], *args: object) -> threading.Thread:
    """Start a daemon thread with every signal blocked. RuntimeError if the system gives no thread.

    A new thread inherits the mask of the one that starts it, so the mask is set around the start and put back: there
    is no moment at which the kernel could pick the new thread for a signal and interrupt a worker's system call with
    it.
    """
    thread = threading.Thread(target=target, args=args, name=name, daemon=True)
    before = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return thread
