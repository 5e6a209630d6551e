"""What all handles have in common, and the record of calls that those of one name share."""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger("agent.events")


class Tally:
    """All calls under one name, shared by every event of that name: it outlives each and stays one short list.

    ``alert`` is the time in seconds above which a call is worth a second look: a new worst, a slow one, or, while it is
    negative, the first success after errors. One comparison a call serves all three.
    """

    __slots__ = (
        "alert",
        "count",
        "errors",
        "name",
        "place",
        "slow",
        "slow_total",
        "slow_worst",
        "streak",
        "total",
        "worst",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self.total = 0.0
        self.worst = 0.0
        self.alert = 0.0
        self.errors = 0
        self.streak = 0  # errors in a row
        self.slow = 0
        self.slow_total = 0.0
        self.slow_worst = 0.0
        self.place: tuple[str, str | None, int | None] = (name, None, None)

    def add(self, spent: float) -> None:
        """Count one call of ``spent`` seconds that a worker made (the loop's own: Meter.run)."""
        self.count += 1
        self.total += spent
        self.worst = max(self.worst, spent)


def worth_a_line(count: int) -> bool:
    """True for the 1st, 2nd, 4th, 8th ... time: a source that fails for ever fills no disk with its log."""
    return count & (count - 1) == 0


class Event:
    """The root of all handles. ``fired`` counts the calls that were begun, the running one included."""

    __slots__ = ("_args", "_fn", "_tally", "fired")

    _args: tuple[object, ...]
    _fn: Callable[..., object]
    _tally: Tally
    fired: int

    @property
    def name(self) -> str:
        """The given name, or that of its function."""
        return self._tally.name

    @property
    def active(self) -> bool:
        """False once nothing more can come of it: cancelled, finished, or its descriptor closed."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Stop at once, for good. Idempotent; safe inside any callback, the event's own included."""
        raise NotImplementedError

    def _flagged(self) -> None:
        """Called on the loop's thread when a call of this event was flagged slow."""

    def _failed(self, error: Exception) -> None:
        """Called on the loop's thread when a call of this event raised."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {'active' if self.active else 'ended'} fired={self.fired}>"


class Call(Event):
    """One ``call_soon`` or ``call_soon_threadsafe``: an event that fires once and has no handle."""

    __slots__ = ()

    def __init__(self, fn: Callable[..., object], args: tuple[object, ...], tally: Tally) -> None:
        self._fn = fn
        self._args = args
        self._tally = tally
        self.fired = 0

    @property
    def active(self) -> bool:
        return not self.fired
