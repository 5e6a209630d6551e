"""Descriptors: who watches which, what is armed in the kernel, and the phase of a turn that calls them.

The facts about epoll that are named here by number stand in poller.py.
"""

from __future__ import annotations

import select
from collections.abc import Callable

from .event import Tally, log
from .meter import Meter
from .poller import Poller
from .sockets import IN, OUT, HasFileno, SocketEvent
from .threads import Owner
from .types import Dispatch

NOBODY = -1  # instead of a number, in a report that is void
ASLEEP = select.EPOLLONESHOT  # a mask that keeps the entry and reports at most one hang-up (fact 5)


class Descriptors:
    """All descriptors of a manager, by number. Used on the loop's thread alone, ``cancel`` apart."""

    def __init__(
        self,
        poller: Poller,
        wake_fd: int,
        drain: Callable[[], None],
        meter: Meter,
        owner: Owner,
        offload: Callable[[SocketEvent, tuple[Callable[[], object], ...], float], float],
        post: Callable[..., None],
    ) -> None:
        self._poller = poller
        self._wake_fd = wake_fd
        self._drain = drain
        self._meter = meter
        self._owner = owner
        self._offload = offload
        self._post = post
        self.events: dict[int, SocketEvent] = {}
        # Numbers whose entry could not be removed because they were closed before the event was cancelled: with a
        # duplicate alive the kernel still holds it (fact 2). Looked into when the number turns up again.
        self._suspects: set[int] = set()
        self.later: list[SocketEvent] = []  # whose on_writable comes after everybody's first callback
        self.batch: list[tuple[int, int]] = []  # what this turn's wait found
        self.watching = 0  # active and not paused: what keeps loop() going
        poller.register(wake_fd, IN)

    def create(
        self,
        source: int | HasFileno,
        on_readable: Callable[[], object] | None,
        on_writable: Callable[[], object] | None,
        tally: Tally,
        dispatch: Dispatch,
    ) -> SocketEvent:
        fd = source if isinstance(source, int) else source.fileno()
        fn = on_readable or on_writable
        if fn is None:
            raise ValueError("a descriptor needs on_readable, on_writable or both")
        event = SocketEvent()
        event._descriptors = self
        event._fd = fd
        event._source = source  # a socket nobody else holds would be closed by the garbage collector
        event._on_readable, event._on_writable = on_readable, on_writable
        event._fn = fn
        event._args = ()
        event._tally = tally
        event._dispatch = dispatch
        event._inline = dispatch is not Dispatch.WORKER
        event._wanted = (IN if on_readable else 0) | (OUT if on_writable else 0)
        event._paused = event._working = False
        event._slow = event.fired = event._told = 0
        event._cost = event._alert = 0.0
        event._mask, event._call = self._armed(event)
        old = self._register(event)
        # If this turn's wait found something under this number, it was the former owner's.
        for place, report in enumerate(self.batch):
            if report[0] == fd:
                self.batch[place] = (NOBODY, 0)
        event._active = True
        self.events[fd] = event
        self.watching += 1
        self._poller.size = len(self.events) + 8
        if old is not None:
            self._dead(old)
            self._rebuild()  # fact 4
        return event

    def _register(self, event: SocketEvent) -> SocketEvent | None:
        """Enter the event in the kernel; the dead event that had its number, if any. ValueError if it is refused."""
        fd = event._fd
        old = self.events.get(fd)
        if fd in self._suspects:
            self._rebuild()
        try:
            self._poller.register(fd, event._mask)
        except FileExistsError:
            other = old.name if old is not None else "the event manager itself"
            raise ValueError(f"descriptor {fd} is watched already, by {other!r}: cancel that event first") from None
        except PermissionError:
            raise ValueError(
                f"descriptor {fd} is a regular file or directory, which is always ready: read it on a worker"
            ) from None
        except (OSError, ValueError) as error:
            if old is not None:
                self._dead(old)
            raise ValueError(f"descriptor {fd} cannot be watched: {error}") from error
        return old

    def _armed(self, event: SocketEvent) -> tuple[int, Callable[[], object] | None]:
        """(what the kernel is to report for the event now, what a plain EPOLLIN may call at once)."""
        if event._paused or event._working:
            return ASLEEP, None
        if not event._inline:
            return event._wanted | select.EPOLLONESHOT, None  # the kernel disarms it with the report
        return event._wanted, event._on_readable

    def arm(self, event: SocketEvent) -> None:
        """Make the kernel's entry agree with the event; notices if it is no longer the file that was registered."""
        event._mask, event._call = self._armed(event)
        self.alive(event)

    def alive(self, event: SocketEvent) -> bool:
        """True if the number still is the file that was registered (fact 3); else the event is cancelled and logged."""
        try:
            self._poller.modify(event._fd, event._mask)
        except OSError:
            self._dead(event)
            self._rebuild()
            return False
        return True

    def want(self, event: SocketEvent, wanted: int) -> None:
        self._owner.check("want_writable")
        if event._active and wanted != event._wanted:
            event._wanted = wanted
            if not (event._paused or event._working):
                self.arm(event)

    def pause(self, event: SocketEvent, paused: bool) -> None:
        self._owner.check("pause" if paused else "resume")
        if event._active and paused != event._paused:
            event._paused = paused
            self.watching += -1 if paused else 1
            self.arm(event)

    def worked(self, event: SocketEvent) -> None:
        """The callback of a Dispatch.WORKER event returned: report again."""
        event._working = False
        if event._active:
            self.arm(event)

    def cancel(self, event: SocketEvent) -> None:
        """Take the entry out of the kernel at once: the owner may close the descriptor as soon as this returns."""
        if not event._active:
            return
        event._active = False
        event._call = None
        try:
            self._poller.unregister(event._fd)
        except (OSError, ValueError):  # closed first: the wrong way round, and common
            self._suspects.add(event._fd)
        if self._owner.foreign():
            self._post(self._forget, event)
        else:
            self._forget(event)

    def _forget(self, event: SocketEvent) -> None:
        if self.events.get(event._fd) is event:
            del self.events[event._fd]
        self._tell(event)
        if not event._paused:
            self.watching -= 1

    def _dead(self, event: SocketEvent) -> None:
        if not event._active:  # cancelled from a worker, not yet forgotten: it will be
            return
        log.warning(
            "descriptor.lost name=%s fd=%d: closed, or replaced by another file, while it was watched; "
            "event cancelled (cancel an event before closing its descriptor)",
            event.name,
            event._fd,
        )
        event._active = False
        event._call = None
        self._forget(event)

    def _rebuild(self) -> None:
        """A new epoll without the entries that cannot be named any more. Rare, and costs 1 µs a descriptor."""
        self._suspects.clear()
        entries = [(fd, event._mask) for fd, event in self.events.items() if event._active]
        entries.append((self._wake_fd, IN))
        for fd in self._poller.rebuild(entries):
            event = self.events.get(fd)
            if event is not None:
                self._dead(event)

    def run_later(self, started: float) -> float:
        """The writers' turn, of events that were readable and writable at once and have had one callback."""
        while self.later:
            event = self.later.pop(0)
            if event._active and event._inline and event._mask & OUT:
                started = self._run(event, event._on_writable, started)
        return started

    def check(self, ready: list[tuple[int, int]]) -> None:
        """Ask of each number whether it still is the file that was registered (fact 3); if not, its event dies."""
        for fd, _ in ready:
            event = self.events.get(fd)
            # MOD arms anew: not where the report has just disarmed. Those are asked when handed over, or resumed.
            if event is not None and not event._mask & select.EPOLLONESHOT:
                self.alive(event)

    def _run(self, event: SocketEvent, fn: Callable[[], object] | None, started: float) -> float:
        """Meter.run for one of the two callbacks of an event; the watcher, should it look, finds the right one."""
        if fn is None:
            return started
        event._fn = fn
        event._told += 1  # Meter.run tells the tally itself
        return self._meter.run(event, fn, (), started)

    def run_odd(self, event: SocketEvent, mask: int, started: float) -> float:
        """Everything but a plain readable one: errors and hang-ups, writable ones, and those that go to a worker."""
        if not event._active or event._paused or event._working:
            return started
        reader, writer = event._on_readable, event._on_writable
        # A hang-up or an error is whatever is not OUT: the reader's next read shows it, or, if there is none, the
        # writer's write.
        first = reader if mask & ~OUT else None
        second = writer if (mask & event._wanted & OUT) or (reader is None and mask & ~OUT) else None
        if event._inline:
            if first is not None and second is not None:
                self.later.append(event)
            return self._run(event, first or second, started)
        fns = tuple(fn for fn in (first, second) if fn is not None)
        if not fns:
            self.arm(event)
            return started
        event._working = True
        event._mask, event._call = self._armed(event)  # as the kernel has it since the report
        if self.alive(event):  # asked every time: a hand-over costs twenty times as much
            event._told += 1  # Delivery tells the tally
            return self._offload(event, fns, started)
        return started

    def _tell(self, event: SocketEvent) -> None:
        """Bring the event's tally, and the count of all calls, up to date with its plain calls."""
        calls = event.fired - event._told
        self._meter.calls += calls
        event._tally.count += calls
        event._tally.total += event._cost
        event._told, event._cost = event.fired, 0.0

    def tell(self, ready: list[tuple[int, int]]) -> None:
        """The same for a turn's events; those that were cancelled in it have been told of."""
        for fd, _ in ready:
            event = self.events.get(fd)
            if event is not None:
                self._tell(event)

    def tell_all(self) -> None:
        """The same for every event: before somebody looks at the tallies."""
        for event in list(self.events.values()):
            self._tell(event)

    def stranger(self, fd: int) -> None:
        """A report for a number that no event has: the wake-up, one cancelled in this turn, or a ghost (fact 2)."""
        if fd == self._wake_fd:
            self._drain()
        elif fd != NOBODY and fd in self._suspects:
            self._rebuild()

    def close(self) -> None:
        for event in list(self.events.values()):
            event._active = False
            event._call = None
        self.events.clear()
        self.watching = 0
