"""Timers: the handle, the arithmetic of a grid that neither drifts nor loses a point, and the phase that fires them."""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush
from time import monotonic
from typing import Any

from .agenda import Agenda
from .clock import nanoseconds
from .event import Event, Tally, log
from .meter import Meter
from .threads import Owner
from .types import Dispatch, Missed

Internal = Callable[[Any, float], float]

INF = math.inf
INLINE, WORKER = (
    Dispatch.INLINE,
    Dispatch.WORKER,
)  # an enumeration's members are dear to look up, and this is a hot path
LAG_WINDOW = 10.0  # seconds
SHORTEST = 1e-9  # seconds: the clock's own step

# A timer's number: that of its entry in the agenda, or, where it has none, one of these.
FIRED = -1  # a one-shot that is over; reschedule() arms it again
CANCELLED = -2
WORKING = -3  # a one-shot whose callback is with a worker

# The n-th point of a grid is first + round(n * step) whole nanoseconds: computed from the first point each time, so
# that nothing adds up, and rounded to the clock's own resolution, so that a grid of 0.1 s meets a clock that shows
# 0.3 and not 0.30000000000000004. n * step is exact to a nanosecond for 104 days of uptime and to 1e-16 of it after
# that.


def grid_point(first: int, step: float, n: int) -> float:
    """The n-th point in seconds of the grid that starts at ``first`` (ns) and goes by ``step`` (ns)."""
    return (first + round(n * step)) / 1e9


def next_point(first: int, step: float, after: float) -> int:
    """The smallest n >= 0 whose point lies later than ``after`` (seconds)."""
    n = max(0, int((nanoseconds(after) - first) / step))  # this one or the one before, but for steps of a few ns
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
    """The handle of a timer.

    This class itself is the plain case, a one-shot that runs inline. A program may have hundreds of thousands of them
    as time-outs, so they carry no more than they need; GridTimerEvent has the rest.
    """

    __slots__ = ("_due", "_interval", "_number", "_timers")

    _timers: Timers
    _due: float  # seconds by the manager's clock
    _interval: float  # seconds
    _number: int
    skipped: int = 0
    """Points of its grid that went by without a call."""

    @property
    def active(self) -> bool:
        return self._number >= 0 or self._number == WORKING

    @property
    def interval(self) -> float:
        """Seconds between two points of the grid."""
        return self._interval

    @property
    def due(self) -> float | None:
        """When it fires next, in seconds by the manager's clock; None if it is not armed."""
        return self._due if self._number >= 0 else None

    def cancel(self) -> None:
        if self._number >= 0:
            self._number = CANCELLED
            self._timers.disarmed(self)
        else:
            self._number = CANCELLED

    def reschedule(self, interval: float) -> None:
        """Start a new grid: due ``interval`` seconds from now and, if it repeats, every ``interval`` from then on.

        A one-shot that has fired is armed again by this. One that was cancelled is not: RuntimeError.
        """
        self._timers.reschedule(self, checked("interval", interval))


class GridTimerEvent(TimerEvent):
    """A timer that repeats, or goes to a worker, or is one of the manager's own."""

    __slots__ = (
        "_catch_up",
        "_dispatch",
        "_first",
        "_inline",
        "_internal",
        "_owed",
        "_point",
        "_repeat",
        "_slow",
        "_working",
        "skipped",
    )

    _first: int  # ns: the first point of the grid
    _point: int  # which point of it is next
    _repeat: bool
    _catch_up: bool
    _dispatch: Dispatch
    _inline: bool
    _internal: Internal | None  # what a timer of the manager's own calls, untimed and uncounted
    _working: bool  # its callback is with a worker now
    _owed: int  # points of CATCH_UP that came meanwhile
    _slow: int
    skipped: int

    def _flagged(self) -> None:
        self._slow += 1
        if self._dispatch is Dispatch.AUTO and self._inline and self._slow >= 3:
            self._inline = False
            log.warning("callback.moved name=%s to=worker slow=%d", self.name, self._slow)


class Timers:
    """All timers of a manager. Used on the loop's thread alone, ``TimerEvent.cancel`` apart."""

    __slots__ = (
        "_lag_before",
        "_meter",
        "_offload",
        "_own_tally",
        "_owner",
        "_post",
        "_round",
        "_window",
        "agenda",
        "lag",
        "live",
        "now",
        "number",
        "worst_lag",
    )

    def __init__(
        self,
        now: Callable[[], float],
        meter: Meter,
        owner: Owner,
        offload: Callable[[GridTimerEvent, float], float],
        post: Callable[..., None],
    ) -> None:
        self.now = now
        self._round = now is not monotonic  # a clock that tests read and set deserves dues in its own whole nanoseconds
        self._meter = meter
        self._owner = owner
        self._offload = offload
        self._post = post
        self._own_tally = Tally("(manager)")
        self.agenda = Agenda()
        self.number = 0  # of the next entry
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
        tally: Tally,
        first_after: float | None = None,
        repeat: bool = True,
        missed: Missed = Missed.SKIP,
        dispatch: Dispatch = Dispatch.INLINE,
    ) -> TimerEvent:
        """A new armed timer. ValueError as ``checked`` says."""
        if not 0.0 < interval < INF:  # false for NaN, too
            checked("interval", interval)
        if interval < SHORTEST:
            interval = SHORTEST
        after = interval if first_after is None else checked("first_after", first_after, zero=True)
        event: TimerEvent
        if not repeat and dispatch is INLINE:
            event = TimerEvent()
            due = self.now() + after
            if self._round:
                due = nanoseconds(due) / 1e9
        else:
            event = grid = GridTimerEvent()
            grid._repeat = repeat
            grid._catch_up = missed is Missed.CATCH_UP
            grid._dispatch = dispatch
            grid._inline = dispatch is not WORKER
            grid._internal = None
            grid._working = False
            grid._point = grid._owed = grid._slow = grid.skipped = 0
            grid._first = nanoseconds(self.now() + after)
            due = grid._first / 1e9
        event._timers = self
        event._fn = fn
        event._args = args
        event._tally = tally
        event._interval = interval
        event._due = due
        event._number = number = self.number
        event.fired = 0
        self.number = number + 1
        self.live += 1
        self.agenda.fresh.append((due, number, event))
        return event

    def internal(self, after: float, fn: Internal, arg: Any) -> TimerEvent:
        """A one-shot of the manager's own: it does not keep the loop going, and is neither timed nor counted."""
        event = self.create(max(after, SHORTEST), fn, (arg,), self._own_tally, repeat=False, dispatch=WORKER)
        assert isinstance(event, GridTimerEvent)
        event._internal = fn
        self.live -= 1
        return event

    def disarmed(self, event: TimerEvent) -> None:
        """An armed timer has lost its number. On a worker, which may cancel, the books are left to the loop."""
        if self._owner.ident and self._owner.foreign():
            self._post(self.disarmed, event)
            return
        if type(event) is TimerEvent or event._internal is None:  # type: ignore[attr-defined]
            self.live -= 1
        agenda = self.agenda
        agenda.dead += 1
        if agenda.dead > agenda.most_dead:
            agenda.clear_out()

    def reschedule(self, event: TimerEvent, interval: float) -> None:
        """See TimerEvent.reschedule."""
        self._owner.check("reschedule")
        if event._number == CANCELLED:
            raise RuntimeError(f"timer {event.name!r} was cancelled: create a new one")
        if event._number >= 0:
            event._number = FIRED
            self.disarmed(event)
        event._interval = max(interval, SHORTEST)
        first = nanoseconds(self.now() + interval)
        if isinstance(event, GridTimerEvent):
            event._first, event._point = first, 0
        event._due = first / 1e9
        event._number = self.number
        self.number += 1
        self.live += 1
        self.agenda.fresh.append((event._due, event._number, event))

    def run_due(self, now: float, started: float) -> float:
        """Phase 2: fire what is due by ``now``, in order; the time at which the last one ended.

        Each entry is taken off before its callback runs, so that whatever leaves through an exception leaves the
        agenda whole.
        """
        agenda, meter = self.agenda, self._meter
        heap, line, run = agenda.heap, agenda.run, meter.run
        base = started - now  # 0 but for a ManualClock: lateness includes what the callbacks before this one took
        lag = self.lag
        while True:
            if line and not (heap and heap[0] < line[-1]):
                due, number, event = line[-1]
                if due > now:
                    break
                line.pop()
            elif heap:
                due, number, event = heap[0]
                if due > now:
                    break
                heappop(heap)
            else:
                break
            if event._number != number:
                agenda.dead -= 1
                continue
            late = started - base - due
            if late > lag:
                self.lag = lag = late
            if type(event) is TimerEvent:
                event._number = FIRED
                self.live -= 1
                started = run(event, event._fn, event._args, started)
            else:
                started = self._fire(event, now, started)  # type: ignore[arg-type]
        self._keep_lag(started)
        return started

    def _fire(self, event: GridTimerEvent, now: float, started: float) -> float:
        """One point of a timer that is more than a plain one-shot."""
        if event._internal is not None:
            event._number = FIRED
            return event._internal(event._args[0], started)
        if event._repeat:
            self._rearm(event, now)
        else:
            event._number = FIRED if event._inline else WORKING
            self.live -= 1
        if event._inline:
            return self._meter.run(event, event._fn, event._args, started)
        return self._offload(event, started)

    def _rearm(self, event: GridTimerEvent, now: float) -> None:
        """Put the next point of the grid on the agenda; count those that went by."""
        step = event._interval * 1e9
        point = event._point + 1
        due = (event._first + round(point * step)) / 1e9
        if due <= now and not event._catch_up:
            later = next_point(event._first, step, now)
            event.skipped += later - point
            point, due = later, grid_point(event._first, step, later)
        event._point = point
        event._due = due
        entry = (due, event._number, event)
        if due <= now:
            heappush(self.agenda.heap, entry)  # owed by CATCH_UP: this turn's, in its place among the others
        else:
            self.agenda.fresh.append(entry)

    def _keep_lag(self, started: float) -> None:
        if self.lag > self.worst_lag:
            self.worst_lag = self.lag
        if started - self._window > LAG_WINDOW:
            self._window, self._lag_before, self.lag = started, self.lag, 0.0

    def recent_lag(self) -> float:
        """Seconds: the worst lateness of the last one to two windows."""
        age = monotonic() - self._window
        if age > 2 * LAG_WINDOW:
            return 0.0
        return max(self.lag, self._lag_before if age < LAG_WINDOW else 0.0)
