"""The loop itself: one turn, phase by phase."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from .clock import ManualClock
from .delivery import Delivery
from .descriptors import Descriptors
from .event import Call
from .inbox import Inbox
from .meter import Meter
from .poller import Poller
from .pool import Pool
from .signals import SignalEvent, Signals
from .sockets import IN
from .timers import Timers
from .watcher import Watcher
from .work import Work

# Under a ManualClock work still takes real time: loop() gives it as much as it is about to move the clock by, but never
# more than this many seconds, and run_once() no more either.
MANUAL_PATIENCE = 1.0


# A descriptor that is reported is asked whether it still is the file that was registered (poller.py, facts 2 and 3),
# which costs a system call: 0.5 µs, a third of a dispatch. So it is done after every wait; in an unbroken run of busy
# turns at the 1st, 2nd, 4th, 8th ... and every 128th of them. One that is closed, with a duplicate alive, in the
# middle of such a run is reported 127 times more at the worst.
BUSY_CHECK = 128

BUSY = 100e-6  # seconds: a wait that took less did not wait, but for what the system call and the turn themselves take

NOTHING: list[tuple[int, int]] = []


class Loop:
    """Turns. Everything it turns on is made by the manager and handed to it."""

    def __init__(
        self,
        now: Callable[[], float],
        manual: ManualClock | None,
        meter: Meter,
        watcher: Watcher,
        inbox: Inbox,
        pool: Pool,
        delivery: Delivery,
        timers: Timers,
        poller: Poller,
        descriptors: Descriptors,
        signals: Signals,
    ) -> None:
        self._now = now
        self._manual = manual
        self._meter = meter
        self._watcher = watcher
        self._inbox = inbox
        self._pool = pool
        self._delivery = delivery
        self._timers = timers
        self._poller = poller
        self._descriptors = descriptors
        self._signals = signals
        self.stopping = False

    def could_fire(self) -> bool:
        """False when nothing is left that could ever call anything."""
        return bool(
            self._descriptors.watching
            or self._timers.live
            or self._signals.count
            or self._pool.outstanding
            or self._inbox.items
        )

    def run(self, once: bool, timeout: float | None = None) -> int:
        """Turn once, or until ``stopping`` or nothing could fire; the number of callbacks run.

        A turn's batches are fixed when its wait ends: what is ready, due and waiting then is this turn's, what
        callbacks add is the next one's. Times are chained from callback to callback, ``started`` being where the next
        one starts.
        """
        meter, watcher, timers, descriptors = self._meter, self._watcher, self._timers, self._descriptors
        agenda, items, poller = timers.agenda, self._inbox.items, self._poller
        fresh, heap, line, poll = agenda.fresh, agenda.heap, agenda.run, poller.poll
        events, later = descriptors.events, descriptors.later
        real = self._now is monotonic
        calls = meter.calls
        busy = 0  # turns in a row that found something without a wait: look again before going to sleep
        check_at = 2
        started = 0.0
        while once or not (self.stopping or not (descriptors.watching or self.could_fire())):
            # 1. Wait, until a descriptor is ready, a timer is due, or something lies in the inbox.
            due = agenda.next_due() if fresh or heap or line else None
            ready = poll(0, poller.size) if busy else None
            if ready:
                # Without a wait: ``started`` is past by no more than this system call, and the clock need not be asked.
                descriptors.batch = ready
                busy += 1
                if busy == check_at:
                    check_at += min(check_at, BUSY_CHECK)
                    descriptors.check(ready)
            else:
                meter.event = None
                before = started
                descriptors.batch = ready = self._wait(due, timeout, advance=not once)
                started = monotonic()
                meter.turns += busy or 1
                busy, check_at = 0, 2
                if ready:
                    descriptors.check(ready)
                    if started - before < BUSY:
                        busy = 1
            if watcher.asleep:
                watcher.wake()
            # 2. Timers that were due when the wait ended; before descriptors, as they are the ones that can be late.
            if due is not None:
                now = started if real else self._now()
                if due <= now:
                    started = timers.run_due(now, started)
            # 3. Descriptors that were ready when the wait ended, each once. A number in ``ready`` stands for the event
            #    that had it then: one that was cancelled since is not in the table, and a new owner is struck out.
            for fd, mask in ready:
                try:
                    event = events[fd]
                except KeyError:
                    descriptors.stranger(fd)
                    continue
                call = event._call
                if mask != IN or call is None:
                    started = descriptors.run_odd(event, mask, started)
                    continue
                # Plainly readable. What follows is Meter.run in place, with the sums kept in the event: a call of it,
                # and the way to the tally, would add an eighth to the price of a dispatch.
                meter.event = event
                meter.since = started
                event.fired += 1
                try:
                    call()
                except Exception as error:  # noqa: BLE001 - a callback may raise anything; contract 14
                    meter.failed(event, error)
                ended = monotonic()
                spent = ended - started
                event._cost += spent
                if spent > event._alert:
                    started = meter.noted(event, call, started, spent)
                    event._alert = event._tally.alert
                else:
                    started = ended
            if later:
                started = descriptors.run_later(started)
            # 4. The inbox as it is now: signals, finished work, calls from other threads and call_soon, in their order.
            if items:
                started = self._run_inbox(started)
            if once:
                descriptors.tell(ready)
                descriptors.batch = NOTHING
                break
            # These reports go before the next ones come: memory that is used again at once is still in the cache.
            descriptors.batch = ready = NOTHING
        return meter.calls - calls

    def _wait(self, due: float | None, timeout: float | None, advance: bool) -> list[tuple[int, int]]:
        """Sleep until the first of everything that a turn looks at; what is ready then."""
        inbox = self._inbox
        if due is not None:
            left = due - self._now()
            if self._manual is not None:
                left = self._manual_wait(left, timeout)
            if timeout is None or left < timeout:
                timeout = left
        elif self._manual is not None and timeout is None and not advance:
            timeout = MANUAL_PATIENCE if self._pool.outstanding else 0.0
        # The flag before the look: what is handed in after the look finds the flag, and wakes.
        inbox.asleep = True
        if inbox.items or self.stopping:
            timeout = 0.0
        ready = self._poller.wait(timeout)
        inbox.asleep = False
        if due is not None and advance and self._manual is not None and not (ready or inbox.items):
            self._manual.advance_to(due)
        return ready

    def _manual_wait(self, left: float, timeout: float | None) -> float:
        """Real seconds to wait if the next timer is ``left`` seconds away by a clock that stands still."""
        if left <= 0.0:
            return 0.0
        if timeout is not None:
            return timeout
        return min(left, MANUAL_PATIENCE) if self._pool.outstanding else 0.0

    def _run_inbox(self, started: float) -> float:
        """Phase 4, and the last thing that close() does."""
        items, meter = self._inbox.items, self._meter
        for _ in range(len(items)):
            item = items.popleft()
            if type(item) is Work:
                started = self._delivery.settle(item, started)
            elif type(item) is Call:
                started = meter.run(item, item._fn, item._args, started)
            elif type(item) is SignalEvent:
                if item.active:
                    started = meter.run(item, item._fn, item._args, started)
            elif type(item) is tuple:
                item[0](*item[1])
        return started

    def empty(self) -> None:
        """Serve what other threads have handed in so far, outside of a turn."""
        self._run_inbox(monotonic())
        self._meter.event = None
