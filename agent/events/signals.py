"""Signals: from the kernel to a turn of the loop, without a window in which one is lost or runs inside a callback.

Python runs a signal's handler on the main thread, between two bytecodes: a signal that comes just before epoll_wait
would have its handler run only after the wait. So its C handler writes a byte to our wake-up pipe first
(signal.set_wakeup_fd), which ends the wait; the handler in Python puts what is registered for the
signal into the loop's inbox.

A pipe, because the byte cannot go into an eventfd (EINVAL, in silence). The byte's value is not used: a pipe can be
full, the note cannot.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from .event import Event, Tally, log
from .inbox import Inbox
from .threads import Owner

MOST_PENDING = 10_000


class SignalEvent(Event):
    """The handle of a callback for a signal."""

    __slots__ = ("_active", "_signals", "signum")

    _active: bool
    _signals: Signals
    signum: int

    @property
    def active(self) -> bool:
        return self._active

    def cancel(self) -> None:
        self._signals.cancel(self)


class Signals:
    """All signal callbacks of a manager."""

    def __init__(self, inbox: Inbox, owner: Owner) -> None:
        self._inbox = inbox
        self._owner = owner
        self._events: dict[int, list[SignalEvent]] = {}
        self._previous: dict[int, Any] = {}  # signum -> handler to put back
        self._previous_fd: int | None = None
        self.count = 0

    def create(self, signum: int, fn: Callable[..., object], args: tuple[object, ...], tally: Tally) -> SignalEvent:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("signals belong to the main thread: create signal events there")
        signum = int(signum)
        if signum not in self._events:
            self._install(signum)
        event = SignalEvent()
        event._signals = self
        event._fn, event._args, event._tally = fn, args, tally
        event._active = True
        event.fired = 0
        event.signum = signum
        self._events.setdefault(signum, []).append(event)
        self.count += 1
        return event

    def _install(self, signum: int) -> None:
        try:
            previous = signal.getsignal(signum)
            signal.signal(signum, self._note)
        except OSError as error:  # SIGKILL, SIGSTOP; a number out of range is a ValueError already
            raise ValueError(f"signal {signum} cannot be caught: {error}") from error
        # None: installed by C code, which Python cannot put back; the default is the nearest there is.
        self._previous[signum] = signal.SIG_DFL if previous is None else previous
        signal.siginterrupt(signum, False)  # system calls of C libraries go on by themselves
        if self._previous_fd is None:
            self._previous_fd = signal.set_wakeup_fd(self._inbox.write_fd, warn_on_full_buffer=False)

    def _note(self, signum: int, _: FrameType | None) -> None:
        """The handler, on the main thread, between any two bytecodes: it hands the events to the loop.

        It wakes by hand, too: the loop may run on another thread, or another manager have the wake-up fd by now. A
        storm beyond MOST_PENDING things in the inbox is cut off; it has been heard.
        """
        if len(self._inbox.items) < MOST_PENDING:
            for event in self._events.get(signum, ()):
                self._inbox.post(event)

    def cancel(self, event: SignalEvent) -> None:
        """The last one of a signal puts its previous handler back, so that Ctrl-C is not swallowed by nobody."""
        if not event._active:
            return
        event._active = False
        if self._owner.foreign():
            self._inbox.post((self._forget, (event,)))
        else:
            self._forget(event)

    def _forget(self, event: SignalEvent) -> None:
        events = self._events.get(event.signum, [])
        if event in events:
            events.remove(event)
            self.count -= 1
        if not events and event.signum in self._events:
            del self._events[event.signum]
            self._restore(event.signum)

    def _restore(self, signum: int) -> None:
        previous = self._previous.pop(signum)
        if threading.current_thread() is not threading.main_thread():
            log.warning("signal.kept signal=%d: only the main thread can put its previous handler back", signum)
            return
        if signal.getsignal(signum) == self._note:  # else somebody took it over meanwhile
            signal.signal(signum, previous)
        if not self._previous and self._previous_fd is not None:
            try:
                ours = signal.set_wakeup_fd(self._previous_fd)
            except (OSError, ValueError):  # its owner closed it meanwhile
                ours = signal.set_wakeup_fd(-1)
            if ours not in (self._inbox.write_fd, -1):  # another manager came after us and is still there
                signal.set_wakeup_fd(ours, warn_on_full_buffer=False)
            self._previous_fd = None

    def close(self) -> None:
        for events in list(self._events.values()):
            for event in list(events):
                self.cancel(event)
