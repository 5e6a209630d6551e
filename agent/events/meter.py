"""Every callback of the loop goes through ``Meter.run``: named, timed, flagged when slow, its exceptions caught.

The watcher's thread (watcher.py) reads ``event`` and ``since`` at any moment without a lock. Both are single stores;
the watcher reads ``since`` before and after it looks, and what changed meanwhile it does not report.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Literal

from .event import Event, Tally, log, worth_a_line
from .names import name_of, place_of
from .types import CallbackStats, SlowCallback, SlowCallbackError, SlowStats

OnSlow = Literal["warn", "stop"] | Callable[[SlowCallback], object]
OnError = Callable[[Event, Exception], object]

# Names are given by people: a program has tens. Those of one that makes them up without end ("retry-1", "retry-2" ...)
# are still logged, but no longer kept for stats(), whose cost and memory stay bounded.
MOST_NAMES = 1000


class Meter:
    """Runs callbacks one at a time on the loop's thread and keeps the account of them."""

    __slots__ = (
        "_on_error",
        "_on_slow",
        "_raised",
        "_slow_after",
        "_stop",
        "calls",
        "event",
        "seen",
        "since",
        "tallies",
        "turns",
    )

    def __init__(self, slow_after: float, on_slow: OnSlow, on_error: OnError | None) -> None:
        self._slow_after = slow_after
        self._stop = on_slow == "stop"
        self._on_slow = on_slow if callable(on_slow) else None
        self._on_error = on_error
        self._raised = False
        self.tallies: dict[str | None, Tally] = {}
        self.calls = 0
        self.turns = 0  # of the loop; a run of busy ones is added when it ends
        self.event: Event | None = None  # whose callback runs now; None between batches, while the loop waits
        self.since = 0.0  # when it began, by time.monotonic()
        self.seen: tuple[float, tuple[str, ...]] = (0.0, ())  # the watcher's last sample: since, stack

    def tally(self, name: str | None, fn: Callable[..., object]) -> Tally:
        """The record for a name, or for the function's name where none was given."""
        name = name or name_of(fn)
        tally = self.tallies.get(name)
        if tally is None:
            tally = Tally(name)
            if len(self.tallies) < MOST_NAMES:
                self.tallies[name] = tally
        return tally

    def run(self, event: Event, fn: Callable[..., object], args: tuple[object, ...], started: float) -> float:
        """Call ``fn(*args)`` for ``event``; the time at which it ended, which is where the next one starts.

        Times are chained, so that a call costs one reading of the clock and not two; what the loop itself does between
        two calls (some 0.2 µs) is charged to the second. Arming the watcher is the first two stores.
        Loop.run has a copy of this body for plainly readable descriptors.
        """
        self.event = event
        self.since = started
        self.calls += 1
        event.fired += 1
        try:
            fn(*args) if args else fn()
        except Exception as error:  # noqa: BLE001 - a callback may raise anything; contract 14
            self.failed(event, error)
        ended = monotonic()
        spent = ended - started
        tally = event._tally
        tally.count += 1
        tally.total += spent
        if spent > tally.alert:
            return self.noted(event, fn, started, spent)
        return ended

    def noted(self, event: Event, fn: Callable[..., object], started: float, spent: float) -> float:
        """A call above its tally's ``alert``; the time at which looking at it ended."""
        tally = event._tally
        if self._raised:
            self._raised = False
        elif tally.streak:
            if tally.streak > 1:
                log.info("callback.recovered name=%s errors=%d", tally.name, tally.streak)
            tally.streak = 0
        tally.worst = max(tally.worst, spent)
        tally.alert = -1.0 if tally.streak else min(tally.worst, self._slow_after)
        if spent > self._slow_after:
            self._slow(event, fn, started, spent)
        return monotonic()  # the report is not the next callback's fault

    def failed(self, event: Event, error: Exception) -> None:
        """An exception of a callback: the owner's handler, whose own exception ends the loop, or the log."""
        tally = event._tally
        tally.errors += 1
        tally.streak += 1
        tally.alert = -1.0
        self._raised = True
        event._failed(error)
        if self._on_error is not None:
            self._on_error(event, error)
        elif worth_a_line(tally.streak):
            log.error("callback.failed name=%s errors=%d", tally.name, tally.errors, exc_info=error)

    def _slow(self, event: Event, fn: Callable[..., object], started: float, spent: float) -> None:
        tally = event._tally
        tally.slow += 1
        tally.slow_total += spent
        tally.slow_worst = max(tally.slow_worst, spent)
        tally.place = place_of(fn)
        since, stack = self.seen
        slow = SlowCallback(tally.name, *tally.place, spent, running=False, stack=stack if since == started else ())
        if worth_a_line(tally.slow):
            where = f"{slow.file}:{slow.line}" if slow.file else "built-in"
            log.warning(
                "callback.slow name=%s duration=%.3fs function=%s at=%s count=%d",
                *(tally.name, spent, slow.function, where, tally.slow),
            )
        event._flagged()
        if self._on_slow is not None:
            try:
                self._on_slow(slow)
            except Exception as error:  # noqa: BLE001 - the owner's callback like any other
                self.failed(event, error)
                self._raised = False
        if self._stop:
            raise SlowCallbackError(slow)

    def running(self) -> SlowCallback | None:
        """What holds the loop now and is past ``slow_after``; for other threads than the loop's."""
        since, event = self.since, self.event
        elapsed = monotonic() - since
        if event is None or elapsed <= self._slow_after or self.since != since:
            return None
        seen, stack = self.seen
        stack = stack if seen == since else ()
        return SlowCallback(event.name, *place_of(event._fn), elapsed, running=True, stack=stack)

    def stats(self) -> tuple[tuple[CallbackStats, ...], tuple[SlowStats, ...]]:
        """By name the most expensive first, and the slow ones."""
        tallies = sorted(self.tallies.copy().values(), key=lambda t: t.total, reverse=True)
        calls = tuple(CallbackStats(t.name, t.count, t.worst, t.total, t.slow, t.errors) for t in tallies if t.count)
        slow = [SlowStats(t.name, t.slow, t.slow_worst, t.slow_total, *t.place) for t in tallies if t.slow]
        slow.sort(key=lambda s: s.total, reverse=True)
        return calls, tuple(slow)
