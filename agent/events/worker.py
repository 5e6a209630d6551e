"""A worker: one thread of the pool."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from .inbox import Inbox
from .work import Work

if TYPE_CHECKING:
    from .pool import Pool


class Worker:
    """Its queue, its load in expected seconds, the piece it has in hand: all guarded by the pool's lock."""

    __slots__ = ("abandoned", "bell", "current", "load", "over", "queue")

    def __init__(self) -> None:
        self.queue: deque[Work] = deque()
        self.load = 0.0
        self.current: Work | None = None
        self.abandoned = False  # its call timed out and has not returned yet
        self.over = False  # its thread is to end
        self.bell = threading.Lock()  # held while nobody rings
        self.bell.acquire()

    def live(self, pool: Pool, inbox: Inbox, now: Callable[[], float]) -> None:
        """The life of the thread: it begins with a piece in hand.

        The loop is rung once the books are closed and the next piece is in hand. It needs the interpreter's lock to
        come round, and by then gets everything that was finished meanwhile in one turn.
        """
        work = self.current
        began = monotonic()
        while True:
            if work is None:
                work = self._rest(pool)
                if work is None:
                    return
                began = monotonic()
            if work.timeout is not None:
                work.began = now()
            try:
                work.result = work._fn(*work._args)
            except BaseException as error:  # noqa: BLE001 - a job may raise anything; SystemExit must not end a worker in silence
                work.error = error
            ended = monotonic()
            work.spent = ended - began
            work = pool.finish(self, work, ended)
            began = ended
            if inbox.asleep:
                inbox.wake()

    def _rest(self, pool: Pool) -> Work | None:
        """Sleep until there is a piece in hand; None if the thread is to end."""
        if self.over:
            return None
        if not self.bell.acquire(timeout=pool.patience()):
            if pool.dismiss(self):
                return None
            self.bell.acquire()
        return self.current


def load_of(worker: Worker) -> float:
    """For ``min`` and ``max``."""
    return worker.load
