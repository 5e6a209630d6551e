"""The loop's side of work: telling owners what came of it, time-outs, and callbacks of Dispatch.WORKER."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from .descriptors import Descriptors
from .event import Event, log
from .inbox import Inbox
from .meter import Meter
from .pool import PATIENCE, Pool
from .sockets import SocketEvent
from .threads import Owner
from .timers import FIRED, WORKING, GridTimerEvent, TimerEvent, Timers
from .types import WorkRejected, WorkTimeout
from .work import State, Work


class Delivery:
    """Between the pool and the loop. All of it runs on the loop's thread, ``cancel`` apart."""

    def __init__(self, pool: Pool, meter: Meter, inbox: Inbox, owner: Owner) -> None:
        self._pool = pool
        self._meter = meter
        self._inbox = inbox
        self._owner = owner
        self._check: TimerEvent | None = None
        self.timers: Timers  # both set by the manager: they need this object first
        self.descriptors: Descriptors

    # -- pieces of work -------------------------------------------------------------------------------------------

    def submit(self, work: Work) -> None:
        """Give a piece to the pool; WorkRejected."""
        self._pool.submit(work)
        if self._pool.restless:
            self._tend()
        if work.timeout is not None:
            # Counted from its start, which is not yet known and would cost a wake-up to learn: look when it can have
            # come at the earliest, and again as much later as it began later.
            self.timers.internal(work.timeout, self._expire, work)

    def settle(self, work: Work, started: float) -> float:
        """Tell the owner of a finished piece what came of it."""
        if work.state is not State.FINISHED:
            return started  # cancelled, or timed out, while it lay in the inbox
        work.state = State.SETTLED
        work._active = False
        self._pool.outstanding -= 1
        if self._pool.restless:  # its worker has put the next of its key into a queue
            self._tend()
        if work.settle is not None:
            work.settle(work)
            return monotonic()
        return self.tell(work, started)

    def tell(self, work: Work, started: float) -> float:
        """Call ``on_done`` or ``on_error``; an error that nobody asked for is logged."""
        result, error = work.result, work.error
        work.result = work.error = None  # a traceback holds frames that hold the work
        fn = work.on_done if error is None else work.on_error
        if fn is not None:
            work._fn = fn  # where the watcher and stats() say it stands
            return self._meter.run(work, fn, (result if error is None else error,), started)
        work.fired += 1
        if error is not None:
            log.error("work.failed name=%s", work.name, exc_info=error)
            return monotonic()
        return started

    def cancel(self, work: Work) -> None:
        """See Work.cancel. From another thread the count of what is outstanding is the loop's to correct."""
        if self._pool.cancel(work):
            if self._owner.foreign():
                self._inbox.post((self._one_less, ()))
            else:
                self._one_less()

    def _one_less(self) -> None:
        self._pool.outstanding -= 1

    def _expire(self, work: Work, started: float) -> float:
        """A piece's time-out may have come."""
        left = self._pool.expire(work)
        if self._pool.restless:  # what was queued behind it has found another queue
            self._tend()
        if left is not None:
            self.timers.internal(left, self._expire, work)
        elif work.state is State.TIMED_OUT and work.error is not None:
            return self.tell(work, started)
        return started

    def _tend(self) -> None:
        """See to it that somebody looks after pieces that have to wait."""
        if self._check is None:
            self._check = self.timers.internal(PATIENCE, self._look, None)

    def _look(self, _: object, started: float) -> float:
        self._check = None
        left = self._pool.check()
        if left is not None:
            self._check = self.timers.internal(left, self._look, None)
        return started

    def leave(self, queued: list[Work], running: list[Work]) -> None:
        """The pool is closed: the owners of what it did not do or finish hear so."""
        for work in queued:
            work.error = WorkRejected(f"{work.name}: the event manager was closed before it began")
        for work in running:
            log.warning("work.left name=%s: still running when the event manager was closed", work.name)
            work.error = WorkTimeout(f"{work.name}: still running when the event manager was closed")
        started = monotonic()
        for work in (*queued, *running):
            if work.settle is None:
                started = self.tell(work, started)

    # -- callbacks of timers and descriptors that run on a worker -------------------------------------------------

    def timer(self, event: GridTimerEvent, started: float) -> float:
        """A timer with Dispatch.WORKER is due. It never runs twice at the same time: the point is skipped, or owed."""
        if not event._working:
            return self._offload(event, (event._fn,), self._timer_worked, started)
        if event._catch_up:
            event._owed += 1
        else:
            event.skipped += 1
        return started

    def descriptor(self, event: SocketEvent, fns: tuple[Callable[[], object], ...], started: float) -> float:
        """A descriptor with Dispatch.WORKER is ready, and disarmed."""
        return self._offload(event, fns, self._descriptor_worked, started)

    def _offload(
        self,
        event: GridTimerEvent | SocketEvent,
        fns: tuple[Callable[..., object], ...],
        settle: Callable[[Work], None],
        started: float,
    ) -> float:
        event._working = True
        work = Work(self, _run_all, (event, fns), event._tally, settle=settle)
        try:
            self._pool.submit(work)
        except WorkRejected as error:  # not for a full queue, these do not count: the system gives no thread
            log.warning("callback.inline name=%s error=%s", event.name, error)
            started = self._meter.run(event, _run_all, (event, fns), started)
            settle(work)
            return started
        if self._pool.restless:
            self._tend()
        event.fired += 1
        return monotonic()

    def _timer_worked(self, work: Work) -> None:
        event = work._args[0]
        assert isinstance(event, GridTimerEvent)
        event._working = False
        if event._number == WORKING:
            event._number = FIRED
        elif event._owed and event.active:
            event._owed -= 1
            self._offload(event, (event._fn,), self._timer_worked, monotonic())
        self._account(event, work)

    def _descriptor_worked(self, work: Work) -> None:
        event = work._args[0]
        assert isinstance(event, SocketEvent)
        self.descriptors.worked(event)
        self._account(event, work)

    def _account(self, event: Event, work: Work) -> None:
        error, work.error = work.error, None
        if work.state is State.SETTLED:
            event._tally.add(work.spent)
            self._meter.calls += 1
        if isinstance(error, Exception):
            self._meter.failed(event, error)
        elif error is not None:
            log.error("callback.failed name=%s on=worker", event.name, exc_info=error)
        else:
            event._tally.streak = 0


def _run_all(event: Event, fns: tuple[Callable[..., object], ...]) -> None:
    """On the worker. An event that was cancelled while it waited here is not called any more."""
    for fn in fns:
        if event.active:
            fn(*event._args)
