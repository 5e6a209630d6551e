"""FakePort: a port in memory, for tests of drivers. It does what agent.ports.SerialPort does; a test holds both."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from agent.errors import DeviceLost
from agent.ports import READ_SIZE, WRITE_LIMIT

_LARGE: Final = 1 << 30


class FakePort:
    """A device at the other end of nothing::

    port = FakePort()
    port.feed(b"t=21.5\\n")     # the device says this; a driver under FakeContext gets it at once
    port.written               # what the driver wrote
    port.answer(b"?", b"!")    # after each write that contains b"?", the device says b"!"
    port.hang_up()             # unplugged: read() and write() raise DeviceLost
    """

    def __init__(self, name: str = "fake", *, room: int = _LARGE) -> None:
        """room: bytes that the kernel's buffer takes before ``write`` leaves something over; see ``drain``."""
        self.name = name
        self.on_blocked: Callable[[bool], object] | None = None
        self.on_input: Callable[[], object] | None = None
        """Set by FakeContext: called when there is something to read."""
        self.room = room
        self.baudrate: int | None = None
        """What the driver has set by ``set_baudrate``."""
        self.closed = False
        self._input = bytearray()
        self._written = bytearray()
        self._unsent = bytearray()
        self._gone = False
        self._reason: DeviceLost | None = None
        self._answers: list[tuple[int, bytes, bytes | Callable[[], bytes]]] = []
        self._answered = 0  # bytes of _written that no rule looks at any more
        self._eventfd = -1
        self._finalizer: weakref.finalize[[int], FakePort] | None = None

    # -- the device's side ------------------------------------------------------------------------------------------

    def feed(self, *pieces: bytes) -> None:
        """The device sends; each piece is read on its own."""
        for piece in pieces:
            self._input += piece
            self._changed()

    def hang_up(self, reason: DeviceLost | None = None) -> None:
        """The device is unplugged. What it sent before and nobody read is gone with it, as on a tty.

        reason: what ``read`` and ``write`` raise from now on.
        """
        self._gone = True
        self._reason = reason
        self._changed()

    def answer(self, request: bytes, response: bytes | Callable[[], bytes]) -> None:
        """From now on, whenever request has been written, the device sends response. The newest rule is tried first."""
        self._answers.insert(0, (len(self._written), request, response))

    @property
    def written(self) -> bytes:
        """What has reached the device."""
        return bytes(self._written)

    def drain(self, room: int = _LARGE) -> None:
        """The device took what waited: there is room for so many bytes again. Sends what ``write`` left over."""
        self.room = room
        if not self.closed and not self._gone:
            self.flush()

    # -- the driver's side: driver.Port -----------------------------------------------------------------------------

    def fileno(self) -> int:
        """A descriptor that is readable while ``read`` has something to give or to raise; -1 once closed."""
        if self.closed:
            return -1
        if self._eventfd < 0:
            self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._finalizer = weakref.finalize(self, os.close, self._eventfd)
            self._mirror()
        return self._eventfd

    @property
    def readable(self) -> bool:
        """Whether ``read`` has something to give or to raise."""
        return not self.closed and (bool(self._input) or self._gone)

    @property
    def pending(self) -> int:
        """Bytes written that have not found room yet."""
        return len(self._unsent)

    def read(self) -> bytes:
        """What has come, at most 64 KiB; b"" if that is nothing. Raises DeviceLost."""
        self._check()
        data = bytes(self._input[:READ_SIZE])
        del self._input[:READ_SIZE]
        self._mirror()
        return data

    def write(self, data: bytes) -> None:
        """Send all of data; what finds no room goes out by ``flush``. Raises DeviceLost."""
        self._check()
        sent = 0 if self._unsent else self._send(data)
        if sent == len(data):
            return
        if len(self._unsent) + len(data) - sent > WRITE_LIMIT:
            raise DeviceLost(f"{self.name} takes nothing: {len(self._unsent)} bytes wait already")
        was_clear = not self._unsent
        self._unsent += data[sent:]
        if was_clear and self.on_blocked is not None:
            self.on_blocked(True)

    def flush(self) -> None:
        """Send what waits, as far as there is room. Raises DeviceLost."""
        if not self._unsent:
            return
        self._check()
        del self._unsent[: self._send(bytes(self._unsent))]
        if not self._unsent and self.on_blocked is not None:
            self.on_blocked(False)

    def set_baudrate(self, baudrate: int) -> None:
        """Change the bit rate: ``baudrate`` tells it. Raises DeviceLost."""
        self._check()
        self.baudrate = baudrate

    def close(self) -> None:
        """Idempotent. Drops what is unsent."""
        self.closed = True
        self._unsent.clear()
        if self._finalizer is not None:
            self._finalizer()
            self._eventfd = -1

    # ---------------------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self.closed:
            raise DeviceLost(f"{self.name} is closed")
        if self._gone:
            raise self._reason or DeviceLost(f"{self.name} hung up")

    def _send(self, data: bytes) -> int:
        taken = min(len(data), self.room)
        self.room -= taken
        self._written += data[:taken]
        self._answer()
        return taken

    def _answer(self) -> None:
        while True:
            found = [
                (at, rule)
                for rule in self._answers
                if (at := self._written.find(rule[1], max(rule[0], self._answered))) >= 0
            ]
            if not found:
                return
            at, (_, request, response) = min(found, key=lambda item: item[0])
            self._answered = at + max(1, len(request))
            self.feed(response() if callable(response) else response)

    def _changed(self) -> None:
        self._mirror()
        if self.on_input is not None and self.readable:
            self.on_input()

    def _mirror(self) -> None:
        """Make the descriptor tell what ``readable`` tells."""
        if self._eventfd < 0:
            return
        with suppress(BlockingIOError):
            os.eventfd_read(self._eventfd)
        if self.readable:
            os.eventfd_write(self._eventfd, 1)
