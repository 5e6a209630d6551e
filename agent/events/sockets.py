"""The handle of a watched descriptor. What it asks for is done in descriptors.py."""

from __future__ import annotations

import errno
import select
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from .event import Event, log
from .types import Dispatch

if TYPE_CHECKING:
    from .descriptors import Descriptors

IN, OUT = select.EPOLLIN, select.EPOLLOUT


class HasFileno(Protocol):
    """A socket, a serial port, a file object."""

    def fileno(self) -> int: ...


class SocketEvent(Event):
    """The handle of a watched descriptor, of whatever kind: socket, pipe, tty, eventfd, inotify, GPIO line."""

    __slots__ = (
        "_active",
        "_alert",
        "_call",
        "_cost",
        "_descriptors",
        "_dispatch",
        "_fd",
        "_inline",
        "_mask",
        "_on_readable",
        "_on_writable",
        "_paused",
        "_slow",
        "_source",
        "_told",
        "_wanted",
        "_working",
    )

    _active: bool
    _alert: float  # its tally's, here for speed
    _cost: float  # seconds that its plain calls took; with their number, what its tally has yet to hear
    _descriptors: Descriptors
    _source: int | HasFileno
    _fd: int
    _on_readable: Callable[[], object] | None
    _on_writable: Callable[[], object] | None
    _wanted: int  # IN and OUT as the owner wants them
    _mask: int  # what the kernel has
    _paused: bool
    _working: bool  # its callback is with a worker now
    _dispatch: Dispatch
    _inline: bool
    _slow: int
    _told: int  # calls of which its tally has heard
    _call: Callable[[], object] | None  # on_readable while a plain EPOLLIN may call it inline; else None

    @property
    def active(self) -> bool:
        return self._active

    def fileno(self) -> int:
        """The number that is watched."""
        return self._fd

    def cancel(self) -> None:
        self._descriptors.cancel(self)

    def want_writable(self, flag: bool) -> None:
        """Call ``on_writable`` while the descriptor takes data, or do not; from the start it is wanted if given."""
        if flag and self._on_writable is None:
            raise ValueError(f"{self.name!r} was created without on_writable")
        self._descriptors.want(self, (self._wanted | OUT) if flag else (self._wanted & ~OUT))

    def pause(self) -> None:
        """Report nothing, hang-ups included, until ``resume()``. Paused, it does not keep ``loop()`` going."""
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
        self._alert = -1.0
        if isinstance(error, OSError) and error.errno == errno.EBADF and self._active:
            self._descriptors.alive(self)
