"""What other threads hand to the loop, and how they wake it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from .event import Event

Chore = tuple[Callable[..., None], tuple[object, ...]]  # book-keeping of the manager: neither timed nor counted


class Inbox:
    """A queue with a bell.

    The loop sets ``asleep`` before it looks into the queue for the last time and waits; a thread puts its item in
    before it looks at ``asleep``. Whichever comes first, either the loop sees the item or the thread sees the flag. A
    loop that is busy is not rung for at all, and a burst rings once: who rings takes the flag down.
    """

    __slots__ = ("asleep", "items", "read_fd", "write_fd")

    def __init__(self) -> None:
        self.items: deque[Event | Chore] = deque()
        self.asleep = False
        # A pipe and not an eventfd: signal.set_wakeup_fd writes single bytes into it, too.
        self.read_fd, self.write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def post(self, item: Event | Chore) -> None:
        """Hand in an item and wake the loop if it sleeps. From any thread."""
        self.items.append(item)
        if self.asleep:
            self.wake()

    def wake(self) -> None:
        """End the loop's wait, if it waits."""
        if self.asleep:
            self.asleep = False
            with suppress(BlockingIOError):  # full: it is awake for certain
                os.write(self.write_fd, b"\0")

    def drain(self) -> None:
        """Empty the pipe, on the loop's thread, before the items are looked at."""
        with suppress(BlockingIOError):
            while len(os.read(self.read_fd, 4096)) == 4096:
                pass

    def close(self) -> None:
        """Close the pipe. A late ``post`` finds ``asleep`` down and writes nothing."""
        self.asleep = False
        os.close(self.read_fd)
        os.close(self.write_fd)
