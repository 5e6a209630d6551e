"""Timers: a heap of due times, and the arithmetic of a grid that neither drifts nor loses a point."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from time import monotonic
from typing import Any

from .clock import nanoseconds
from .event import Event, Tally, log
from .types import Dispatch, Missed

LAG_WINDOW = 10.0  # seconds

Internal = Callable[[Any, float], tuple[int, float]]
Entry = tuple[float, int, "TimerEvent"]

# The n-th point of a grid is first + round(n * step) whole nanoseconds: computed from the first point each time, so
# that nothing adds up, and rounded to the clock's own resolution, so that a grid of 0.1 s meets a clock that shows
# 0.3 and not 0.30000000000000004. n * step is exact to a nanosecond for 104 days of uptime and to 1e-16 of it after
# that.


def grid_point(first: int, step: float, n: int) -> float:
    """The n-th point in seconds of the grid that starts at ``first`` (ns) and goes by ``step`` (ns)."""
    return (first + round(n * step)) / 1e9


def next_point(first: int, step: float, after: float) -> int:
    """The smallest n >= 0 whose point lies later than ``after`` (seconds)."""
    n = max(0, int((nanoseconds(after) - first) / step))  # right to within one or two, by rounding
    while n > 0 and grid_point(first, step, n - 1) > after:
        n -= 1
    while grid_point(first, step, n) <= after:
        n += 1
    return n


def checked(what: str, seconds: float, zero: bool = False) -> float:
    """``seconds`` if it is finite and > 0 (>= 0 with ``zero``), else ValueError."""
    if not math.isfinite(seconds) or seconds < 0.0 or (seconds == 0.0 and not zero):
        raise ValueError(f"{what} must be a finite number of seconds {'>= 0' if zero else '> 0'}, not {seconds!r}")
    return seconds


class TimerEvent(Event):
    """The handle of a timer. ``skipped`` counts the points of its grid that went by without a call."""

    __slots__ = (
        "_dispatch",
        "_first",
        "_inline",
        "_internal",
        "_interval",
        "_missed",
        "_owed",
        "_point",
        "_queue",
        "_repeat",
        "_seq",
        "_slow",
        "_working",
        "skipped",
    )

    _seq: int  # of its entry in the heap; an entry with another number is dead
    _first: int  # ns
    skipped: int

    @property
    def interval(self) -> float:
        """Seconds between two points of the grid."""
        return self._interval

    @property
    def due(self) -> float | None:
        """When it fires next, in seconds by the manager's clock; None if it is not armed."""
        return grid_point(self._first, self._interval * 1e9, self._point) if self._seq >= 0 else None

    def cancel(self) -> None:
        self._queue.cancel(self)

    def reschedule(self, interval: float) -> None:
        """Start a new grid: due ``interval`` seconds from now and, if it repeats, every ``interval`` from then on.

        A timer that fired once and is done is armed again by this; one that was cancelled is not: RuntimeError.
        """
        self._queue.reschedule(self, interval)

    def _flagged(self) -> None:
        self._slow += 1
        if self._dispatch is Dispatch.AUTO and self._inline and self._slow >= 3:
            self._inline = False
            log.warning("callback.moved name=%s to=worker slow=%d", self.name, self._slow)


class TimerQueue:
    """All timers of a manager, by due time. Used on the loop's thread alone.

    Entries are tuples, which heapq compares in C: (due, number, event), the number making ties fire in order of
    creation and keeping the comparison from ever reaching the event. Cancelling only marks; the dead entry is dropped
    when it comes up, or, once half of the heap is dead, with all others at once, so that a million cancelled
    time-outs do not stay until they are due.
    """

    def __init__(
        self,
        now: Callable[[], float],
        run: Callable[[Event, Callable[..., object], tuple[object, ...], float], float],
        submit: Callable[[TimerEvent, float], tuple[int, float]],
        foreign: Callable[[], bool],
        post: Callable[..., None],
    ) -> None:
        self._now = now
        self._run = run
        self._submit = submit
        self._foreign = foreign
        self._post = post
        self._heap: list[Entry] = []
        self._dead = 0
        self._own = Tally("(manager)")
        self.number = 0  # of the next entry: what a turn takes is below the number that stood here when it began
        self.live = 0  # armed timers of the manager's user
        self.lag = 0.0  # seconds: the worst lateness in the present window
        self.worst_lag = 0.0
        self._lag_before = 0.0  # ... in the window before
        self._window = monotonic()

    def create(
        self,
        interval: float,
        fn: Callable[..., object],
        args: tuple[object, ...],
        name: str | None,
        tally: Tally,
        first_after: float | None = None,
        repeat: bool = True,
        missed: Missed = Missed.SKIP,
        dispatch: Dispatch = Dispatch.INLINE,
    ) -> TimerEvent:
        """A new armed timer. ValueError as ``checked`` says."""
        if not 0.0 < interval < math.inf:  # false for NaN, too
            checked("interval", interval)
        if first_after is None:
            first_after = interval
        elif not 0.0 <= first_after < math.inf:
            checked("first_after", first_after, zero=True)
        event = TimerEvent()
        event._queue = self
        event._fn = fn
        event._args = args
        event._name = name
        event._tally = tally
        event._interval = interval if interval > 1e-9 else 1e-9  # the clock's own step
        event._repeat = repeat
        event._missed = missed
        event._dispatch = dispatch
        event._inline = dispatch is not Dispatch.WORKER
        event._internal = None
        event._active = True
        event._working = False
        event._point = event._slow = event._owed = event.skipped = event.fired = 0
        event._first = first = int((self._now() + first_after) * 1e9 + 0.5)
        event._seq = number = self.number
        self.number = number + 1
        self.live += 1
        heapq.heappush(self._heap, (first / 1e9, number, event))
        return event

    def internal(self, after: float, fn: Internal, arg: Any) -> TimerEvent:
        """A one-shot of the manager's own: it does not keep the loop going, and is neither timed nor counted."""
        event = self.create(after, fn, (arg,), "(manager)", self._own, repeat=False)
        event._internal = fn
        event._inline = False
        self.live -= 1
        return event

    def cancel(self, event: TimerEvent) -> None:
        """Disarm for good. From a worker (a callback of Dispatch.WORKER) the books are done by the loop."""
        if not event._active:
            return
        event._active = False
        armed, event._seq = event._seq >= 0, -1
        if armed:
            if self._foreign():
                self._post(self._bury, event)
            else:
                self._bury(event)

    def _bury(self, event: TimerEvent) -> None:
        if event._internal is None:
            self.live -= 1
        self._dead += 1
        heap = self._heap
        if self._dead > 64 and self._dead * 2 > len(heap):
            heap[:] = [entry for entry in heap if entry[2]._seq == entry[1]]  # in place: run_due holds the list
            heapq.heapify(heap)
            self._dead = 0

    def reschedule(self, event: TimerEvent, interval: float) -> None:
        checked("interval", interval)
        if self._foreign():
            raise RuntimeError("reschedule() belongs to the loop's thread: use call_soon_threadsafe()")
        if not event._active and (event._repeat or not event.fired):
            raise RuntimeError(f"timer {event.name!r} was cancelled: create a new one")
        if event._seq >= 0:
            event._seq = -1
            self._bury(event)
        event._active = True
        event._interval = max(interval, 1e-9)
        event._first = nanoseconds(self._now() + interval)
        event._point = 0
        event._seq = self.number
        self.number += 1
        self.live += 1
        heapq.heappush(self._heap, (event._first / 1e9, event._seq, event))

    def next_due(self) -> float | None:
        """The earliest due time of a living timer."""
        heap = self._heap
        while heap:
            due, number, event = heap[0]
            if event._seq == number:
                return due
            heapq.heappop(heap)
            self._dead -= 1
        return None

    def run_due(self, now: float, below: int, started: float) -> tuple[int, float]:
        """Fire what is due by ``now`` and was armed before number ``below`` was given; (calls, time of the last one's end).

        Nothing is collected beforehand, and yet the batch is fixed: a timer armed by one of these callbacks is due at
        ``now`` at the earliest and has a number from ``below`` up, so it comes after all of this batch, and ends it.
        Should a callback leave through an exception, what is left is still in the heap.
        """
        heap = self._heap
        run = self._run
        replace = heapq.heapreplace
        calls = 0
        base = started - now  # 0 but for a ManualClock: lateness includes what the callbacks before this one took
        while heap:
            due, number, event = heap[0]
            if due > now:
                break
            if event._seq != number:
                heapq.heappop(heap)
                self._dead -= 1
                continue
            if number >= below:
                break
            if event._repeat:
                step = event._interval * 1e9
                point = event._point + 1
                upcoming = grid_point(event._first, step, point)
                if upcoming <= now and event._missed is Missed.SKIP:
                    last, point = point, next_point(event._first, step, now)
                    event.skipped += point - last
                    upcoming = grid_point(event._first, step, point)
                event._point = point
                replace(heap, (upcoming, number, event))
            else:
                heapq.heappop(heap)
                event._seq = -1
                event._active = (
                    event._dispatch is not Dispatch.INLINE and not event._inline
                )  # on a worker it can still be cancelled until it begins
                if event._internal is None:
                    self.live -= 1
            late = started - base - due
            if late > self.lag:
                self.lag = late
                if late > self.worst_lag:
                    self.worst_lag = late
            if event._inline:
                calls += 1
                started = run(event, event._fn, event._args, started)
            else:
                own = event._internal
                count, started = self._submit(event, started) if own is None else own(event._args[0], started)
                calls += count
        if calls and started - self._window > LAG_WINDOW:
            self._window, self._lag_before, self.lag = started, self.lag, 0.0
        return calls, started

    def recent_lag(self) -> float:
        """Seconds: the worst lateness of the last one to two windows."""
        age = monotonic() - self._window
        return max(self.lag, self._lag_before if age < LAG_WINDOW else 0.0) if age < 2 * LAG_WINDOW else 0.0
