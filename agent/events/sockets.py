"""Descriptors: who watches which, what is armed in the kernel, and the phase of a turn that calls them.

The facts about epoll that are named here by number stand in poller.py.
"""

from __future__ import annotations

import errno
import select
from collections.abc import Callable
from typing import Protocol

from .event import Event, Tally, log
from .poller import Poller
from .types import Dispatch

IN, OUT = select.EPOLLIN, select.EPOLLOUT
ASLEEP = select.EPOLLONESHOT  # a mask that keeps the entry and reports at most one hang-up (fact 5)
# A number is asked whether it still is its file (fact 3) at the first report after the loop has waited; in an
# unbroken run of busy turns at the 2nd, 4th, 8th ... and every 32nd turn: 0.5 µs a report would be a third of the
# whole dispatch. So a descriptor that is closed in the middle of such a run is reported 31 times more at the worst.
BUSY_CHECK = 32


class HasFileno(Protocol):
    """A socket, a serial port, a file object."""

    def fileno(self) -> int: ...


class SocketEvent(Event):
    """The handle of a watched descriptor, of whatever kind: socket, pipe, tty, eventfd, inotify, GPIO line."""

    __slots__ = (
        "_born",
        "_descriptors",
        "_dispatch",
        "_fd",
        "_inline",
        "_mask",
        "_on_readable",
        "_on_writable",
        "_owner",
        "_paused",
        "_quick",
        "_slow",
        "_wanted",
        "_working",
    )

    _quick: Callable[[], object] | None  # on_readable while a plain EPOLLIN may call it inline; else None

    def fileno(self) -> int:
        """The number that is watched."""
        return self._fd

    def cancel(self) -> None:
        self._descriptors.cancel(self)

    def want_writable(self, flag: bool) -> None:
        """Call ``on_writable`` while the descriptor takes data, or do not. Given to the constructor, it is wanted from the start."""
        if flag and self._on_writable is None:
            raise ValueError(f"{self.name!r} was created without on_writable")
        self._descriptors.want(self, (self._wanted | OUT) if flag else (self._wanted & ~OUT))

    def pause(self) -> None:
        """Report nothing, hang-ups included, until ``resume()``. A paused descriptor does not keep ``loop()`` going. Idempotent."""
        self._descriptors.pause(self, True)

    def resume(self) -> None:
        """Report again. Idempotent."""
        self._descriptors.pause(self, False)

    def _flagged(self) -> None:
        self._slow += 1
        if self._dispatch is Dispatch.AUTO and self._inline and self._slow >= 3:
            self._inline = False
            log.warning("callback.moved name=%s to=worker slow=%d", self.name, self._slow)
            if self._active:
                self._descriptors.arm(self)

    def _failed(self, error: Exception) -> None:
        if isinstance(error, OSError) and error.errno == errno.EBADF and self._active:
            self._descriptors.alive(self)


class Descriptors:
    """All descriptors of a manager, by number. Used on the loop's thread alone, ``cancel`` apart."""

    def __init__(
        self,
        poller: Poller,
        wake_fd: int,
        drain: Callable[[], None],
        run: Callable[[Event, Callable[..., object], tuple[object, ...], float], float],
        submit: Callable[[SocketEvent, tuple[Callable[[], object], ...], float], tuple[int, float]],
        foreign: Callable[[], bool],
        post: Callable[..., None],
    ) -> None:
        self._poller = poller
        self._wake_fd = wake_fd
        self._drain = drain
        self._run = run
        self._submit = submit
        self._foreign = foreign
        self._post = post
        self._events: dict[int, SocketEvent] = {}
        # Numbers whose entry could not be removed because they were closed before the event was cancelled: with a
        # duplicate alive the kernel still holds it (fact 2). Looked into when the number turns up again.
        self._suspects: set[int] = set()
        self._run_of_busy_turns = 0
        self._next_check = 1
        self.turn = 0
        self.watching = 0  # active and not paused: what keeps loop() going
        poller.register(wake_fd, IN)

    def create(
        self,
        source: int | HasFileno,
        on_readable: Callable[[], object] | None,
        on_writable: Callable[[], object] | None,
        name: str | None,
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
        event._owner = source  # a socket nobody else holds would be closed by the garbage collector
        event._on_readable, event._on_writable = on_readable, on_writable
        event._fn = fn
        event._args = ()
        event._name = name
        event._tally = tally
        event._dispatch = dispatch
        event._inline = dispatch is not Dispatch.WORKER
        event._wanted = (IN if on_readable else 0) | (OUT if on_writable else 0)
        event._paused = event._working = False
        event._slow = event.fired = 0
        event._born = self.turn
        event._mask, event._quick = self._armed(event)
        old = self._register(event)
        event._active = True
        self._events[fd] = event
        self.watching += 1
        self._poller.size = len(self._events) + 8
        if old is not None:
            self._dead(old)
            self._rebuild()  # fact 4
        return event

    def _register(self, event: SocketEvent) -> SocketEvent | None:
        """Enter the event in the kernel; the dead event that had its number, if any. ValueError if it cannot be watched."""
        fd = event._fd
        old = self._events.get(fd)
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
        """Make the kernel's entry agree with the event, and notice if the descriptor is no longer the one that was registered."""
        event._mask, event._quick = self._armed(event)
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
        if self._foreign():
            raise RuntimeError("want_writable() belongs to the loop's thread: use call_soon_threadsafe()")
        if event._active and wanted != event._wanted:
            event._wanted = wanted
            if not (event._paused or event._working):
                self.arm(event)

    def pause(self, event: SocketEvent, paused: bool) -> None:
        if self._foreign():
            raise RuntimeError("pause() and resume() belong to the loop's thread: use call_soon_threadsafe()")
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
        """Take the entry out of the kernel at once, so that the owner may close the descriptor as soon as this returns."""
        if not event._active:
            return
        event._active = False
        event._quick = None
        try:
            self._poller.unregister(event._fd)
        except (OSError, ValueError):  # closed first: the wrong way round, and common
            self._suspects.add(event._fd)
        if self._foreign():
            self._post(self._forget, event)
        else:
            self._forget(event)

    def _forget(self, event: SocketEvent) -> None:
        if self._events.get(event._fd) is event:
            del self._events[event._fd]
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
        event._quick = None
        self._forget(event)

    def _rebuild(self) -> None:
        """A new epoll without the entries that cannot be named any more. Rare, and costs 1 µs a descriptor."""
        self._suspects.clear()
        entries = [(fd, event._mask) for fd, event in self._events.items() if event._active]
        entries.append((self._wake_fd, IN))
        for fd in self._poller.rebuild(entries):
            event = self._events.get(fd)
            if event is not None:
                self._dead(event)

    def run_ready(self, ready: list[tuple[int, int]], turn: int, waited: bool, started: float) -> tuple[int, float]:
        """Give every ready descriptor its callback, once; (calls, time of the last one's end).

        A number in ``ready`` stands for the event that had it when the wait ended. One that has been cancelled since
        is no longer in the table; one that got the number since was born in this turn, and waits for the next.
        """
        check = waited or self._next_check == self._run_of_busy_turns + 1
        if waited:
            self._run_of_busy_turns, self._next_check = 1, 2
        else:
            self._run_of_busy_turns += 1
            if check:
                self._next_check += min(self._next_check, BUSY_CHECK)
        events = self._events
        run = self._run
        later: list[SocketEvent] = []
        calls = 0
        for fd, mask in ready:
            event = events.get(fd)
            if event is None:
                self._stranger(fd)
                continue
            if event._born == turn or (check and event._inline and not self.alive(event)):
                continue
            quick = event._quick
            if quick is not None and mask == IN:
                started = run(event, quick, (), started)
                calls += 1
            elif event._active and not event._paused and not event._working:
                count, started = self._run_odd(event, mask, later, started)
                calls += count
        for event in later:  # second helpings: those that were readable and writable at once
            writer = event._on_writable
            if writer is not None and event._active and event._inline and event._mask & OUT:
                started = run(event, writer, (), started)
                calls += 1
        return calls, started

    def _run_odd(self, event: SocketEvent, mask: int, later: list[SocketEvent], started: float) -> tuple[int, float]:
        """Everything but a plain readable one: errors and hang-ups, writable ones, and those that go to a worker."""
        reader, writer = event._on_readable, event._on_writable
        wanted = event._wanted
        # A hang-up or an error is whatever is not OUT: the reader's next read shows it, the writer's next write if
        # there is no reader.
        first = reader if (mask & ~OUT or not mask) else None
        second = writer if (mask & OUT and wanted & OUT) or (reader is None and mask & ~OUT) else None
        if not event._inline:
            fns = tuple(fn for fn in (first, second) if fn is not None)
            if not fns:
                self.arm(event)
                return 0, started
            event._working = True
            event._mask, event._quick = self._armed(event)  # as the kernel has it since the report
            if self.alive(event):  # asked every time: a hand-over costs twenty times as much
                return self._submit(event, fns, started)
            return 0, started
        fn = first or second
        if fn is None:
            return 0, started
        if first is not None and second is not None:
            later.append(event)
        return 1, self._run(event, fn, (), started)

    def _stranger(self, fd: int) -> None:
        """A report for a number that no event has: the wake-up, one cancelled in this turn, or a ghost (fact 2)."""
        if fd == self._wake_fd:
            self._drain()
        elif fd in self._suspects:
            self._rebuild()

    def close(self) -> None:
        for event in list(self._events.values()):
            event._active = False
            event._quick = None
        self._events.clear()
        self.watching = 0
