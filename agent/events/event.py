"""What all handles have in common, and the record of calls that those of one name share."""

from __future__ import annotations

import logging
from collections.abc import Callable

from .names import name_of

log = logging.getLogger("agent.events")


class Tally:
    """All calls under one name. Shared by every event of that name, so that it outlives each and stays one short list."""

    __slots__ = ("count", "errors", "name", "place", "slow", "slow_total", "slow_worst", "streak", "total", "worst")

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self.total = 0.0
        self.worst = 0.0
        self.errors = 0
        self.streak = 0  # errors in a row: while it is not 0, the next success is worth a line in the log
        self.slow = 0
        self.slow_total = 0.0
        self.slow_worst = 0.0
        self.place: tuple[str, str | None, int | None] = (name, None, None)

    def add(self, spent: float) -> None:
        """Count one call of ``spent`` seconds (the loop's own calls do this inline, in Meter.run)."""
        self.count += 1
        self.total += spent
        if spent > self.worst:
            self.worst = spent


def worth_a_line(count: int) -> bool:
    """True for the 1st, 2nd, 4th, 8th ... time: a source that fails for ever fills no disk with its log."""
    return count & (count - 1) == 0


class Event:
    """The root of all handles. ``fired`` counts the calls that were begun, the running one included."""

    __slots__ = ("_active", "_args", "_fn", "_name", "_tally", "fired")

    _active: bool
    _args: tuple[object, ...]
    _fn: Callable[..., object]
    _name: str | None
    _tally: Tally
    fired: int

    @property
    def name(self) -> str:
        """The given name, or that of its function."""
        return self._name or name_of(self._fn)

    @property
    def active(self) -> bool:
        """False once nothing more can come of it: cancelled, finished, or its descriptor closed."""
        return self._active

    def cancel(self) -> None:
        """Stop at once, for good. Idempotent; safe inside any callback, the event's own included."""
        raise NotImplementedError

    def _flagged(self) -> None:
        """Called on the loop's thread when a call of this event was flagged slow."""

    def _failed(self, error: Exception) -> None:
        """Called on the loop's thread when a call of this event raised."""

    def __repr__(self) -> str:
        state = "active" if self._active else "ended"
        return f"<{type(self).__name__} {self.name!r} {state} fired={self.fired}>"


class Call(Event):
    """One ``call_soon`` or ``call_soon_threadsafe``: an event that fires once and has no handle."""

    __slots__ = ()

    def __init__(self, fn: Callable[..., object], args: tuple[object, ...]) -> None:
        self._fn = fn
        self._args = args
        self._name = None
        self._active = True
        self.fired = 0
