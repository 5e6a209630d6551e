"""PtyPort: a scripted serial device for tests, on a pseudo-terminal, served by a thread of its own."""

from __future__ import annotations

import heapq
import os
import re
import select
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import TypeAlias

from agent.testing.garble import Garbler
from agent.testing.pty import Pty

Data: TypeAlias = "bytes | str"
"""Bytes go out as they are; a str is a line: encoded as UTF-8, with the line ending added."""

_UNMATCHED = 64 * 1024
"""Bytes that may wait for a rule to match: far more than any question, so that a flood of output does not pile up."""
_PIECE = 4096
"""Bytes a write; a full line takes less."""


@dataclass(slots=True)
class _Rule:
    request: bytes | re.Pattern[bytes]
    response: bytes | Callable[[bytes], Data | None]
    delay: float
    left: int | None
    since: int
    """How much the program had written when it was made: that is not for it."""

    def find(self, data: bytes | bytearray, offset: int = 0) -> tuple[int, int] | None:
        """Where its request stands in data, whose first byte is that of so many in all."""
        begin = max(0, self.since - offset)
        if isinstance(self.request, re.Pattern):
            match = self.request.search(data, begin)
            return match.span() if match else None
        start = data.find(self.request, begin)
        return None if start < 0 else (start, start + len(self.request))


class PtyPort(Pty):
    """A serial device that does what the test says, at ``path``::

        with PtyPort() as device:
            device.answer("MEAS?", "21.5")     # rules are served while the test does other things
            device.send('{"t": 21.5}')         # one line
            device.send(b"\\x02\\xff\\x03")       # bytes as they are
            device.expect(b"RST")              # what the program wrote
            device.unplug()                    # it sees a hang-up, and no port
            device.replug()                    # a new device at the same path

    Everything the program writes is read at once, kept in ``received``, and matched against the rules of ``answer``.
    ``send`` waits until the program has opened the port, and for room on the line: nothing is lost on the way to it.
    All waiting ends by ``timeout`` (seconds). Its methods may be called from any thread.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        ending: bytes = b"\n",
        timeout: float = 10.0,
        wait_open: bool = True,
    ) -> None:
        """wait_open: whether ``send`` waits for the program's opening of the port, which shows by the discarding of old
        input, as pyserial does. For a program that discards none, say False.
        """
        super().__init__(path)
        self.ending = ending
        self.timeout = timeout
        self._wait_open = wait_open
        self._state = threading.Condition(threading.RLock())
        self._sending = threading.Lock()
        self._received = bytearray()
        self._seen = 0  # of _received: what expect() has passed
        self._unmatched = bytearray()
        self._rules: list[_Rule] = []
        self._due: list[tuple[float, int, bytes]] = []
        self._order = count()
        self._outgoing = bytearray()  # answers on their way out
        self._in_message = False  # of send(): an answer waits for its end
        self._error: BaseException | None = None  # that ended the thread
        self._garbler: Callable[[bytes], bytes] = bytes
        self._closing = threading.Event()
        self._epoll: select.epoll | None = None
        self._wake = -1
        self._thread: threading.Thread | None = None

    # -- what the device says ---------------------------------------------------------------------------------------

    def send(self, data: Data, *, chunk: int | None = None, pause: float = 0.0, timeout: float | None = None) -> None:
        """Send bytes, or a line.

        chunk, pause: send pieces of so many bytes with so many seconds between them: a slow or stuttering device.
        Raises TimeoutError if the program does not open the port or takes no more, RuntimeError if it is unplugged.
        """
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        if self._wait_open:
            self.wait_open(deadline - time.monotonic())
        octets = self._octets(data)
        step = max(1, len(octets) if chunk is None else chunk)
        with self._sending:  # one message is never cut by another thread's, nor by an answer
            try:
                for start in range(0, len(octets), step):
                    if start:
                        self.delay(pause)
                        deadline += pause
                    with self._state:
                        self._wait_for(lambda: not self._outgoing or not self.plugged, deadline - time.monotonic())
                        self._in_message = True
                        self._write(self._garbler(octets[start : start + step]), deadline)
            finally:
                with self._state:
                    self._in_message = False
                    self._pump()

    def flood(self, lines: Iterable[Data], *, timeout: float = 60.0) -> int:
        """Send all lines as fast as the program takes them; the number of bytes. Raises TimeoutError, RuntimeError."""
        deadline = time.monotonic() + timeout
        block, sent = bytearray(), 0
        for line in lines:
            block += self._octets(line)
            if len(block) >= _PIECE:
                self.send(bytes(block), timeout=deadline - time.monotonic())
                sent += len(block)
                block.clear()
        if block:
            self.send(bytes(block), timeout=deadline - time.monotonic())
        return sent + len(block)

    def answer(
        self,
        request: Data | re.Pattern[bytes],
        response: Data | Callable[[bytes], Data | None],
        *,
        delay: float = 0.0,
        times: int | None = None,
    ) -> None:
        """From now on, answer request by response, after ``delay`` seconds, at most ``times`` times.

        response may be a function of the matched bytes; it runs on the device's thread, and None means silence. Where
        several rules match, the earliest match is answered first, the newer rule before the older.
        """
        want = request if isinstance(request, re.Pattern) else self._octets(request)
        give = response if callable(response) else self._octets(response)
        with self._state:
            self._pump()
            self._rules.insert(0, _Rule(want, give, delay, times, len(self._received)))

    def garble(self, *, flips: float = 0.0, drops: float = 0.0, seed: int = 0) -> None:
        """From now on, spoil what is sent: flip one bit in this share of the bytes, drop that share. No shares: clean.

        The same seed spoils the same bytes.
        """
        garbler = Garbler(flips=flips, drops=drops, seed=seed)
        with self._state:
            self._garbler = garbler if flips or drops else bytes

    def delay(self, seconds: float) -> None:
        """A pause in a script; ``close`` ends it."""
        self._closing.wait(seconds)

    # -- what the program does --------------------------------------------------------------------------------------

    def read(self) -> bytes:
        """What the program has written since the last ``read`` or ``expect``, without waiting."""
        with self._state:
            self._pump()
            data = bytes(self._received[self._seen :])
            self._seen += len(data)
            return data

    @property
    def received(self) -> bytes:
        """Everything the program has written since the device was made."""
        with self._state:
            self._pump()
            return bytes(self._received)

    def expect(self, data: Data | re.Pattern[bytes], *, timeout: float | None = None) -> bytes:
        """Wait until the program has written data; what it wrote since the last ``expect``, up to and with data.

        Raises AssertionError, which shows what came instead.
        """
        rule = _Rule(data if isinstance(data, re.Pattern) else self._octets(data), b"", 0.0, None, 0)
        limit = self.timeout if timeout is None else timeout
        with self._state:
            self._wait_for(lambda: rule.find(self._received[self._seen :]), limit)
            came = bytes(self._received[self._seen :])
            span = rule.find(came)
            if span is None:
                raise AssertionError(f"expected {rule.request!r} within {limit:g} s, but the program wrote {came!r}")
            self._seen += span[1]
            return came[: span[1]]

    def wait_open(self, timeout: float | None = None) -> None:
        """Wait until the program has opened the port. Raises TimeoutError, and RuntimeError while it is unplugged."""
        limit = self.timeout if timeout is None else timeout
        with self._state:
            opened = self._wait_for(lambda: self.ready or not self.plugged, limit)
            if not self.plugged:
                raise RuntimeError(f"{self.path} is unplugged")
            if not opened:
                raise TimeoutError(
                    f"nobody opened {self.path} within {limit:g} s "
                    "(or discarded no input while opening: then say PtyPort(wait_open=False))"
                )

    def wait_closed(self, timeout: float | None = None) -> None:
        """Wait until the program has closed the port, or the device is unplugged. Raises TimeoutError."""
        limit = self.timeout if timeout is None else timeout
        with self._state:
            if not self._wait_for(lambda: not self.ready, limit):
                raise TimeoutError(f"{self.path} was still open after {limit:g} s")

    # -- the plug ---------------------------------------------------------------------------------------------------

    def replug(self) -> None:
        with self._state:
            if self.plugged:
                return
            if self._epoll is None:
                self._start()
            assert self._epoll is not None
            super().replug()
            # Edge-triggered: see pty.py. EPOLLOUT, so that senders learn of room.
            self._epoll.register(self._fd, select.EPOLLIN | select.EPOLLPRI | select.EPOLLOUT | select.EPOLLET)
            self._state.notify_all()

    def unplug(self) -> None:
        with self._state:
            if not self.plugged:
                return
            self._pump()
            assert self._epoll is not None
            self._epoll.unregister(self._fd)
            super().unplug()
            self._unmatched.clear()
            self._outgoing.clear()
            self._due.clear()
            self._state.notify_all()

    def close(self) -> None:
        """Unplug, end the thread, remove the link. Idempotent."""
        self._closing.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            os.eventfd_write(self._wake, 1)
            thread.join()
        with self._state:
            super().close()
            if self._epoll is not None:
                self._epoll.close()
                os.close(self._wake)
                self._epoll = self._thread = None
                self._wake = -1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- the thread -------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._closing.clear()
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._thread = threading.Thread(target=self._serve, name=f"device {self.path}", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        epoll = self._epoll
        assert epoll is not None
        try:
            while not self._closing.is_set():
                with self._state:
                    wait = max(0.0, self._due[0][0] - time.monotonic()) if self._due else -1
                epoll.poll(wait)
                with self._state:
                    with suppress(BlockingIOError):
                        os.eventfd_read(self._wake)
                    self._pump()
                    self._state.notify_all()
        except BaseException as error:  # of a user's answer function
            with self._state:
                self._error = error
                self._state.notify_all()
            raise

    def _wait_for(self, condition: Callable[[], object], timeout: float) -> bool:
        """Wait with the lock held; whether the condition came true. Raises RuntimeError if the thread has failed."""
        came = bool(self._state.wait_for(lambda: condition() or self._error is not None, timeout))
        if self._error is not None:
            raise RuntimeError(f"an answer function of {self.path} failed: {self._error!r}") from self._error
        return came

    def _pump(self) -> None:
        """Take what the program wrote, answer it, and send the answers that are due. With the lock held."""
        if data := super().read():
            self._received += data
            self._unmatched += data
            self._match()
            self._state.notify_all()
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            self._outgoing += self._garbler(heapq.heappop(self._due)[2])
        if self._outgoing and self.plugged and not self._in_message:
            del self._outgoing[: self.write(bytes(self._outgoing))]
            self._state.notify_all()

    def _match(self) -> None:
        while True:
            offset = len(self._received) - len(self._unmatched)
            found = [(span, rule) for rule in self._rules if (span := rule.find(self._unmatched, offset))]
            if not found:
                break
            (start, end), rule = min(found, key=lambda item: item[0][0])
            request = bytes(self._unmatched[start:end])
            del self._unmatched[: max(end, start + 1)]
            if rule.left is not None:
                rule.left -= 1
                if not rule.left:
                    self._rules.remove(rule)
            response = rule.response(request) if callable(rule.response) else rule.response
            if response is not None:
                entry = (time.monotonic() + rule.delay, next(self._order), self._octets(response))
                heapq.heappush(self._due, entry)
                if rule.delay and threading.current_thread() is not self._thread:
                    os.eventfd_write(self._wake, 1)  # it may be asleep for longer
        del self._unmatched[:-_UNMATCHED]

    def _write(self, data: bytes, deadline: float) -> None:
        rest = memoryview(data)
        with self._state:
            while rest:
                if not self.plugged:
                    raise RuntimeError(f"{self.path} is unplugged")
                if taken := self.write(bytes(rest[:_PIECE])):
                    rest = rest[taken:]
                    continue
                left = deadline - time.monotonic()
                if left <= 0 or self._closing.is_set():
                    raise TimeoutError(f"the program takes no more from {self.path}: {len(rest)} bytes are left")
                self._state.wait(left)

    def _octets(self, data: Data) -> bytes:
        return data.encode() + self.ending if isinstance(data, str) else bytes(data)
