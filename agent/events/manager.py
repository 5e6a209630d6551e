"""The event manager: one place where a program waits, and one turn that calls what is due."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import get_ident
from time import monotonic
from types import TracebackType

from .clock import Clock, ManualClock
from .delivery import Delivery
from .descriptors import Descriptors
from .event import Call
from .inbox import Inbox
from .loop import Loop
from .meter import Meter, OnError, OnSlow
from .poller import Poller
from .pool import Pool
from .signals import SignalEvent, Signals
from .sockets import HasFileno, SocketEvent
from .threads import CLOSED, Owner
from .timers import TimerEvent, Timers, checked
from .types import Dispatch, Missed, Stats
from .watcher import Watcher
from .work import Work

CLOSE_PATIENCE = 2.0  # seconds that close() waits for running work


class EventManager:
    """Waits for timers, descriptors, signals and finished work, and calls what was registered for each.

    A turn waits; then it serves timers, descriptors, and the inbox with signals, finished work and calls (loop.py).
    Everything belongs to the thread that runs the loop, but for ``terminate``, ``call_soon_threadsafe``, ``stats`` and
    ``cancel``.
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
        self._now = monotonic if clock is None else clock.now
        self._owner = Owner()
        self._closing = False
        self._inbox = Inbox()
        self._meter = Meter(slow_after, on_slow, on_callback_error)
        self._watcher = Watcher(self._meter, slow_after, hang_after, on_slow == "stop")
        self._pool = Pool(*workers, work_queue, self._now, self._inbox)
        meter, owner, post = self._meter, self._owner, self._post
        work = self._delivery = Delivery(self._pool, meter, self._inbox, owner)
        self._timers = work.timers = Timers(self._now, meter, owner, work.timer, post)
        self._poller = Poller()
        self._descriptors = work.descriptors = Descriptors(
            self._poller, self._inbox.read_fd, self._inbox.drain, meter, owner, work.descriptor, post
        )
        self._signals = Signals(self._inbox, owner)
        self._loop = Loop(
            now=self._now,
            manual=clock if isinstance(clock, ManualClock) else None,
            meter=meter,
            watcher=self._watcher,
            inbox=self._inbox,
            pool=self._pool,
            delivery=work,
            timers=self._timers,
            poller=self._poller,
            descriptors=self._descriptors,
            signals=self._signals,
        )

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
        if self._owner.ident:
            self._owner.check("create_timer_event")
        # The look into the table first: made of a function's own name, it spares 0.2 µs of finding one.
        tally = self._meter.tallies.get(name or getattr(fn, "__qualname__", None)) or self._meter.tally(name, fn)
        return self._timers.create(interval, fn, args, tally, first_after, repeat, missed, dispatch)

    def create_socket_event(
        self,
        fd: int | HasFileno,
        *,
        on_readable: Callable[[], object] | None = None,
        on_writable: Callable[[], object] | None = None,
        dispatch: Dispatch = Dispatch.INLINE,
        name: str | None = None,
    ) -> SocketEvent:
        """Call ``on_readable()`` while there is data or an error to read, ``on_writable()`` while it takes data.

        A callback that is given is wanted from the start: ``want_writable(False)`` until there is something to write.
        ValueError if the descriptor is watched already, is a regular file, or is not open.
        """
        self._owner.check("create_socket_event")
        fn = on_readable or on_writable
        if fn is None:
            raise ValueError("a descriptor needs on_readable, on_writable or both")
        return self._descriptors.create(fd, on_readable, on_writable, self._meter.tally(name, fn), dispatch)

    def create_signal_event(
        self, signum: int, fn: Callable[..., object], *args: object, name: str | None = None
    ) -> SignalEvent:
        """Call ``fn(signum, *args)`` for each arrival of a signal. RuntimeError outside the main thread."""
        self._owner.check("create_signal_event")
        return self._signals.create(signum, fn, (int(signum), *args), self._meter.tally(name, fn))

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
        self._owner.check("execute_work")
        if timeout is not None:
            checked("timeout", timeout)
        checked("weight", weight, zero=True)
        tally = self._meter.tally(name, fn)
        work = Work(self._delivery, fn, args, tally, key, weight, timeout, on_done, on_error)
        self._delivery.submit(work)
        return work

    def call_soon(self, fn: Callable[..., object], *args: object) -> None:
        """Call ``fn(*args)`` at the end of this turn, or, from such a call, of the next. From the loop's own thread."""
        self._owner.check("call_soon")
        self._inbox.items.append(Call(fn, args, self._meter.tally(None, fn)))

    def call_soon_threadsafe(self, fn: Callable[..., object], *args: object) -> None:
        """The same from any thread: wakes the loop."""
        if self._owner.ident == CLOSED:
            raise RuntimeError("the event manager is closed")
        self._inbox.post(Call(fn, args, self._meter.tally(None, fn)))

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
            self._loop.run(once=False)
        finally:
            self._loop.stopping = False
            self._leave()

    def run_once(self, timeout: float | None = None) -> int:
        """One turn, for which it waits ``timeout`` seconds at most (None: for ever); the number of callbacks run.

        Under a ManualClock it does not move the clock, and with ``timeout=None`` waits for nothing but running work,
        and that for a second at most: time, which would end the wait, stands still.
        """
        self._enter()
        try:
            return self._loop.run(once=True, timeout=timeout)
        finally:
            self._leave()

    def terminate(self) -> None:
        """End ``loop()`` after the present turn, or at once when it begins. From any thread or callback."""
        self._loop.stopping = True
        self._inbox.wake()

    def _enter(self) -> None:
        if self._owner.ident:
            self._owner.check("loop")
            raise RuntimeError("the loop is running already: run_once() and loop() do not nest")
        self._owner.ident = self._watcher.owner = get_ident()

    def _leave(self) -> None:
        self._meter.event = None
        self._inbox.asleep = False
        self._owner.ident = 0
        if self._closing:
            self.close()

    # -- threads --------------------------------------------------------------------------------------------------

    def _post(self, fn: Callable[..., None], *args: object) -> None:
        self._inbox.post((fn, args))

    # -- the books and the end ------------------------------------------------------------------------------------

    def stats(self) -> Stats:
        """A snapshot; its cost grows with the number of names, not of events. From any thread."""
        self._descriptors.tell_all()
        events, slow = self._meter.stats()
        return Stats(
            turns=self._meter.turns,
            callbacks=self._meter.calls,
            timers=self._timers.live,
            descriptors=self._descriptors.watching,
            signals=self._signals.count,
            lag=self._timers.recent_lag(),
            worst_lag=self._timers.worst_lag,
            running=self._meter.running() if self._owner.ident > 0 else None,
            slow=slow,
            events=events,
            work=self._pool.stats(),
        )

    def close(self) -> None:
        """End it: queued work through its ``on_error``, running work after 2 s at most, handlers put back. Idempotent.

        Inside a callback it ends the loop first and closes then. From another thread while the loop runs: RuntimeError.
        """
        if self._owner.ident == CLOSED:
            return
        if self._owner.ident:
            self._owner.check("close")
            self._closing = self._loop.stopping = True
            return
        self._signals.close()
        self._owner.ident = CLOSED  # the callbacks below can cancel, but not begin anything
        queued, running = self._pool.close(CLOSE_PATIENCE)
        self._loop.empty()
        self._delivery.leave(queued, running)
        self._watcher.stop()
        self._descriptors.close()
        self._meter.event = None
        self._poller.close()
        self._inbox.close()

    def __enter__(self) -> EventManager:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
