"""The event manager: one place where a program waits, and one turn that calls what is due."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from threading import get_ident
from time import monotonic
from types import TracebackType

from .clock import Clock, ManualClock
from .delivery import Delivery
from .event import Call
from .inbox import Inbox
from .meter import Meter, OnError, OnSlow
from .poller import Poller
from .pool import Pool
from .signals import SignalEvent, Signals
from .sockets import Descriptors, HasFileno, SocketEvent
from .timers import TimerEvent, TimerQueue, checked
from .types import Dispatch, Missed, Stats
from .watcher import Watcher
from .work import Work

CLOSE_PATIENCE = 2.0  # seconds that close() waits for running work
BUSY = 50e-6  # seconds between two turns below which the loop did not really wait
# Under a ManualClock work still takes real time. loop() gives it as much as it is about to move the clock by, but
# never more than this.
MANUAL_PATIENCE = 1.0


class EventManager:
    """Waits for timers, descriptors, signals and finished work, and calls what was registered for each.

    One turn, in this order (docs/event-manager.md has the reasons):

    1. wait, until a descriptor is ready, a timer due, a signal or finished work there
    2. signals that arrived
    3. timers that were due when the wait ended
    4. descriptors that were ready when the wait ended, each once
    5. finished work and calls from other threads that had come in
    6. ``call_soon``

    Everything belongs to the thread that runs the loop, but for ``terminate``, ``call_soon_threadsafe``, ``stats``
    and ``cancel``.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        workers: tuple[int, int] = (1, 4),
        work_queue: int = 1000,
        slow_after: float = 0.050,
        hang_after: float = 10.0,
        on_slow: OnSlow = "warn",
        on_callback_error: OnError | None = None,
    ) -> None:
        if not (on_slow in ("warn", "stop") or callable(on_slow)):
            raise ValueError(f"on_slow must be 'warn', 'stop' or a callable, not {on_slow!r}")
        checked("slow_after", slow_after)
        checked("hang_after", hang_after)
        self._clock = clock
        self._manual = clock if isinstance(clock, ManualClock) else None
        self._now = monotonic if clock is None else clock.now
        self._thread = 0  # ident of the thread inside loop() or run_once(), else 0
        self._turns = 0
        self._ended = 0.0  # when the last callback ended
        self._stopping = False
        self._closing = False
        self._closed = False
        self._soon: deque[Call] = deque()
        self._inbox = Inbox()
        self._meter = Meter(slow_after, on_slow, on_callback_error)
        self._watcher = Watcher(self._meter, slow_after, hang_after, on_slow == "stop")
        self._pool = Pool(*workers, work_queue, self._now, self._inbox)
        run, foreign, post = self._meter.run, self._foreign, self._post
        work = self._delivery = Delivery(self._pool, self._meter, self._inbox, foreign)
        self._timers = work.timers = TimerQueue(self._now, run, work.timer, foreign, post)
        self._poller = Poller()
        self._descriptors = work.descriptors = Descriptors(
            self._poller, self._inbox.read_fd, self._inbox.drain, run, work.descriptor, foreign, post
        )
        self._signals = Signals(self._inbox.write_fd, self._inbox.wake, foreign, post)

    # -- what can be waited for -----------------------------------------------------------------------------------

    def create_timer_event(
        self,
        interval: float,
        fn: Callable[..., object],
        *args: object,
        first_after: float | None = None,
        repeat: bool = True,
        missed: Missed = Missed.SKIP,
        dispatch: Dispatch = Dispatch.INLINE,
        name: str | None = None,
    ) -> TimerEvent:
        """Call ``fn(*args)`` every ``interval`` seconds, or once; first after ``first_after`` (default: ``interval``).

        ValueError if ``interval`` is not finite and > 0, or ``first_after`` not finite and >= 0.
        """
        self._own("create_timer_event")
        tally = self._meter.tally(name, fn)
        return self._timers.create(interval, fn, args, name, tally, first_after, repeat, missed, dispatch)

    def create_socket_event(
        self,
        fd: int | HasFileno,
        *,
        on_readable: Callable[[], object] | None = None,
        on_writable: Callable[[], object] | None = None,
        dispatch: Dispatch = Dispatch.INLINE,
        name: str | None = None,
    ) -> SocketEvent:
        """Call ``on_readable()`` while the descriptor has data or an error to show, ``on_writable()`` while it takes data.

        A callback that is given is wanted from the start: ``want_writable(False)`` until there is something to write.
        ValueError if the descriptor is watched already, is a regular file, or is not open.
        """
        self._own("create_socket_event")
        fn = on_readable or on_writable
        if fn is None:
            raise ValueError("a descriptor needs on_readable, on_writable or both")
        return self._descriptors.create(fd, on_readable, on_writable, name, self._meter.tally(name, fn), dispatch)

    def create_signal_event(
        self, signum: int, fn: Callable[..., object], *args: object, name: str | None = None
    ) -> SignalEvent:
        """Call ``fn(signum, *args)`` for each arrival of a signal. RuntimeError outside the main thread."""
        self._own("create_signal_event")
        return self._signals.create(signum, fn, (int(signum), *args), name, self._meter.tally(name, fn))

    def execute_work(
        self,
        fn: Callable[..., object],
        *args: object,
        on_done: Callable[..., object] | None = None,
        on_error: Callable[..., object] | None = None,
        key: Hashable = None,
        weight: float = 1.0,
        timeout: float | None = None,
        name: str | None = None,
    ) -> Work:
        """Run ``fn(*args)`` on a worker, then ``on_done(result)`` or ``on_error(exception)`` on the loop's thread.

        Pieces of one ``key`` run one after another, in order. ``weight`` is the piece's relative cost. ``timeout``
        (seconds from its start) ends it in WorkTimeout for its owner. WorkRejected if the queue is full. Without
        ``on_error`` an exception is logged.
        """
        self._own("execute_work")
        if timeout is not None:
            checked("timeout", timeout)
        checked("weight", weight, zero=True)
        tally = self._meter.tally(name, fn)
        work = Work(self._delivery, fn, args, name, tally, key, weight, timeout, on_done, on_error)
        self._delivery.submit(work)
        return work

    def call_soon(self, fn: Callable[..., object], *args: object) -> None:
        """Call ``fn(*args)`` at the end of this turn, or, from such a call, of the next. From the loop's own thread."""
        self._own("call_soon")
        call = Call(fn, args)
        call._tally = self._meter.tally(None, fn)
        self._soon.append(call)

    def call_soon_threadsafe(self, fn: Callable[..., object], *args: object) -> None:
        """The same from any thread: wakes the loop."""
        if self._closed:
            raise RuntimeError("the event manager is closed")
        call = Call(fn, args)
        call._tally = self._meter.tally(None, fn)
        self._inbox.post(call)

    def now(self) -> float:
        """Monotonic seconds by the manager's clock."""
        return self._now()

    # -- running --------------------------------------------------------------------------------------------------

    def loop(self) -> None:
        """Turn until ``terminate()``, or until nothing is left that could ever fire. May be called again.

        SlowCallbackError under ``on_slow="stop"``; whatever ``on_callback_error`` raises.
        """
        self._enter()
        try:
            while not self._stopping and self._could_fire():
                self._turn(None, True)
        finally:
            self._stopping = False
            self._leave()

    def run_once(self, timeout: float | None = None) -> int:
        """One turn; the number of callbacks run. Waits ``timeout`` seconds at most for the first of them (None: as long as it takes).

        Under a ManualClock it does not move the clock, and with ``timeout=None`` waits for nothing but running work,
        and that for a second at most: time, which would end the wait, stands still.
        """
        self._enter()
        try:
            return self._turn(timeout, False)
        finally:
            self._leave()

    def terminate(self) -> None:
        """End ``loop()`` after the present turn, or at once when it begins. From any thread or callback."""
        self._stopping = True
        self._inbox.wake()

    def _could_fire(self) -> bool:
        return bool(
            self._descriptors.watching
            or self._timers.live
            or self._signals.count
            or self._pool.outstanding
            or self._soon
            or self._inbox.items
        )

    def _enter(self) -> None:
        if self._closed:
            raise RuntimeError("the event manager is closed")
        if self._thread:
            raise RuntimeError("the loop is running already: run_once() and loop() do not nest")
        self._thread = self._watcher.owner = get_ident()

    def _leave(self) -> None:
        self._meter.event = None
        self._inbox.asleep = False
        self._thread = 0
        if self._closing:
            self.close()

    def _turn(self, timeout: float | None, advance: bool) -> int:
        # 1. Wait. What is ready, due and waiting from here on is this turn's; what comes in meanwhile is the next
        # one's.
        ready = self._wait(timeout, advance)
        started = monotonic()
        now = started if self._clock is None else self._now()
        waited = started - self._ended > BUSY
        self._poller.eager = not waited
        timers, descriptors, watcher = self._timers, self._descriptors, self._watcher
        below = timers.number
        self._turns = turn = self._turns + 1
        descriptors.turn = watcher.turn = turn
        if watcher.asleep:
            watcher.wake()
        calls = 0
        # 2. Signals: rare, and mostly the wish to stop.
        if self._signals.pending:
            for event in self._signals.take():
                if event._active:
                    started = self._meter.run(event, event._fn, event._args, started)
                    calls += 1
        # 3. Timers, before descriptors: they are the ones who can be late.
        count, started = timers.run_due(now, below, started)
        calls += count
        # 4. Descriptors, each once.
        if ready:
            count, started = descriptors.run_ready(ready, turn, waited, started)
            calls += count
        # 5. Finished work and calls from other threads.
        if self._inbox.items:
            count, started = self._run_inbox(started)
            calls += count
        # 6. What callbacks put off.
        if self._soon:
            for _ in range(len(self._soon)):
                call = self._soon.popleft()
                started = self._meter.run(call, call._fn, call._args, started)
                calls += 1
        self._meter.event = None
        self._ended = started
        return calls

    def _wait(self, timeout: float | None, advance: bool) -> list[tuple[int, int]]:
        """Phase 1: what is ready, after a wait that ends with the first of everything the turn looks at."""
        pool = self._pool
        if pool.restless:
            self._delivery.tend()
        due = None
        if self._soon:
            timeout = 0.0
        else:
            due = self._timers.next_due()
            if due is not None:
                left = due - self._now()
                if self._manual is not None:
                    left = self._manual_wait(left, timeout, advance)
                if timeout is None or left < timeout:
                    timeout = left
            elif self._manual is not None and timeout is None and not advance:
                timeout = MANUAL_PATIENCE if pool.outstanding else 0.0
        # The flag before the look: what is handed in after the look finds the flag, and wakes.
        inbox = self._inbox
        inbox.asleep = True
        if inbox.items or self._signals.pending or self._stopping:
            timeout = 0.0
        ready = self._poller.wait(timeout)
        inbox.asleep = False
        if advance and due is not None and self._manual is not None and not (ready or inbox.items):
            self._manual.advance_to(due)
        return ready

    def _manual_wait(self, left: float, timeout: float | None, advance: bool) -> float:
        """Real seconds to wait where the next timer is ``left`` seconds away by a clock that does not move by itself."""
        if left <= 0.0:
            return 0.0
        if timeout is not None:
            return timeout
        return min(left, MANUAL_PATIENCE) if self._pool.outstanding else 0.0

    def _run_inbox(self, started: float) -> tuple[int, float]:
        items = self._inbox.items
        calls = 0
        for _ in range(len(items)):
            item = items.popleft()
            if type(item) is Work:
                count, started = self._delivery.settle(item, started)
                calls += count
            elif type(item) is Call:
                started = self._meter.run(item, item._fn, item._args, started)
                calls += 1
            elif type(item) is tuple:
                item[0](*item[1])
        return calls, started

    # -- threads --------------------------------------------------------------------------------------------------

    def _foreign(self) -> bool:
        """True on another thread than the one that runs the loop now."""
        return self._thread not in (0, get_ident())

    def _own(self, what: str) -> None:
        if self._thread and self._thread != get_ident():
            raise RuntimeError(f"{what}() belongs to the loop's thread: hand it over with call_soon_threadsafe()")
        if self._closed:
            raise RuntimeError("the event manager is closed")

    def _post(self, fn: Callable[..., None], *args: object) -> None:
        self._inbox.post((fn, args))

    # -- the books and the end ------------------------------------------------------------------------------------

    def stats(self) -> Stats:
        """A snapshot; its cost grows with the number of names, not of events. From any thread."""
        callbacks, events, slow = self._meter.stats()
        return Stats(
            turns=self._turns,
            callbacks=callbacks,
            timers=self._timers.live,
            descriptors=self._descriptors.watching,
            signals=self._signals.count,
            lag=self._timers.recent_lag(),
            worst_lag=self._timers.worst_lag,
            running=self._meter.running() if self._thread else None,
            slow=slow,
            events=events,
            work=self._pool.stats(),
        )

    def close(self) -> None:
        """End it: queued work through its ``on_error``, running work after 2 s at most, handlers put back. Idempotent.

        Inside a callback it ends the loop first and closes then. From another thread while the loop runs: RuntimeError.
        """
        if self._closed:
            return
        if self._thread:
            if self._foreign():
                raise RuntimeError("close() belongs to the loop's thread: terminate() is for the others")
            self._closing = self._stopping = True
            return
        self._thread = get_ident()  # the callbacks below are the loop's; they may cancel, but not begin, anything
        self._closed = True
        self._signals.close()
        queued, running = self._pool.close(CLOSE_PATIENCE)
        self._run_inbox(monotonic())
        self._delivery.leave(queued, running)
        self._watcher.stop()
        self._descriptors.close()
        self._meter.event = None
        self._poller.close()
        self._thread = 0
        self._inbox.close()

    def __enter__(self) -> EventManager:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
