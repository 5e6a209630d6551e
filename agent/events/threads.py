"""Threads of the manager: daemons that no signal reaches."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable


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
