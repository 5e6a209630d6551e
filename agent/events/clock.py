"""Time for the event manager: the kernel's monotonic clock, or one that stands still until it is told to move."""

from __future__ import annotations

import math
from typing import Protocol


class Clock(Protocol):
    """What the manager asks of a clock: seconds that never go back."""

    def now(self) -> float: ...


def nanoseconds(seconds: float) -> int:
    """The whole nanosecond nearest to ``seconds``; below 26 days exactly the one that ``n / 1e9`` was made from."""
    return int(seconds * 1e9 + 0.5)


class ManualClock:
    """A clock for tests and simulations: it moves by ``advance`` alone, or, inside ``loop()``, to the next due time.

    It counts whole nanoseconds, so that ten steps of 0.1 s make exactly 1.0 s and meet a timer that is due then; a
    sum of floats would stop at 0.9999999999999999 and lose the point.
    """

    __slots__ = ("_ns",)

    def __init__(self, start: float = 0.0) -> None:
        self._ns = nanoseconds(start)

    def now(self) -> float:
        """Seconds since the clock's origin."""
        return self._ns / 1e9

    def advance(self, seconds: float) -> None:
        """Move forward; what is due by then fires in the next turn. ValueError if negative or not finite."""
        if not (math.isfinite(seconds) and seconds >= 0.0):
            raise ValueError(f"a clock moves forward by a finite time, not by {seconds!r} s")
        self._ns += nanoseconds(seconds)

    def advance_to(self, when: float) -> None:
        """Move forward to ``when`` (seconds by this clock); stay where that is past."""
        self._ns = max(self._ns, nanoseconds(when))
        while self._ns / 1e9 < when:  # at most twice: past 26 days a float is coarser than a nanosecond
            self._ns += 1
