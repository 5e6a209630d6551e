"""The stream that feeds a driver's parser: inline, or on a worker, in order either way."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from agent.driver import DeviceLost, Fault, Parser, Port, Sample
from agent.events import SocketEvent, WorkRejected
from agent.logline import line

if TYPE_CHECKING:
    from agent.context import DeviceContext

SLOW_FEED = 0.010
"""Seconds of one inline ``feed`` that count as slow: five times what 4 KiB of the slowest text format take."""
SLOW_FEEDS = 3
"""Slow ones in a row after which the parser moves to a worker."""
PARSE_TIMEOUT = 30.0
"""Seconds after which a ``feed`` on a worker counts as hung, and the device is opened anew."""
QUEUED_BYTES = 256 * 1024
"""Bytes that wait for a busy worker before the port is paused: the kernel's buffer then holds the device."""
RETRY_REJECTED = 0.1
"""Seconds until a parser tries again when the pool's queue was full."""


class Stream:
    """Port -> parser -> samples, inline or on a worker; one piece at a time on the worker, so order is kept."""

    def __init__(
        self,
        ctx: DeviceContext,
        port: Port,
        parser: Parser,
        heavy: bool,
        on_end: Callable[[DeviceLost], object] | None = None,
    ) -> None:
        self.event: SocketEvent
        self._ctx = ctx
        self._port = port
        self._parser = parser
        self._on_worker = False
        self._on_end = on_end
        self._slow = 0
        self._queue: deque[tuple[int, bytes]] = deque()
        self._queued = 0
        self._busy = False
        self._paused = False
        self._ended: Callable[[], object] | None = None
        if heavy:
            self._move()

    def _move(self) -> None:
        """The parser runs on a worker from now on, or in a process of its own while a worker waits for it."""
        self._on_worker = True
        if self._ctx.parsing is not None:
            self._parser = self._ctx.parsing.host(self._parser)

    def readable(self, *, last: bool = False) -> None:
        try:
            data = self._port.read()
        except DeviceLost as gone:
            if not last:
                self._gone(gone)
            return
        if not data:
            return
        ctx = self._ctx
        now = ctx.clock.mono_ns()
        if self._on_worker:
            self._queue.append((now, data))
            self._queued += len(data)
            if self._queued >= QUEUED_BYTES and not last:
                self._paused = True
                self.event.pause()
            self._next()
            return
        begin = time.perf_counter()
        items = tuple(self._parser.feed(data))
        took = time.perf_counter() - begin
        ctx.accept(items, now)
        if took < SLOW_FEED:
            self._slow = 0
            return
        self._slow += 1
        if self._slow >= SLOW_FEEDS:
            self._move()
            ctx.log.warning(line("parser.moved", device=ctx.device, to="worker", took_ms=took * 1000, bytes=len(data)))

    def block(self, blocked: bool) -> None:
        """Leave the port alone, or read it again unless the worker is behind."""
        if blocked:
            self.event.pause()
        elif not self._paused:
            self.event.resume()

    def end(self, on_ended: Callable[[], object]) -> None:
        """No more is read; on_ended is called when all that was read is parsed."""
        self._ended = on_ended
        if not self._busy and not self._queue:
            self._finish()

    def _gone(self, gone: DeviceLost) -> None:
        on_end = self._on_end
        if on_end is None:
            self._ctx.lost(str(gone))
        else:
            self.event.cancel()
            self.end(lambda: self._ctx.stream_ended(self, on_end, gone))

    def _next(self) -> None:
        if self._busy or not self._queue:
            return
        pieces = list(self._queue)
        ctx = self._ctx
        try:
            ctx.manager.execute_work(
                self._feed,
                pieces,
                on_done=self._parsed,
                on_error=self._failed,
                key=ctx.device,
                weight=self._queued / 4096,
                timeout=PARSE_TIMEOUT,
                name=f"{ctx.device}.parse",
            )
        except WorkRejected:
            # What was read stays here; the port rests until the pool has room.
            self._busy = True
            if not self._paused and self._ended is None:
                self._paused = True
                self.event.pause()
            ctx.manager.create_timer_event(RETRY_REJECTED, self._again, repeat=False, name=f"{ctx.device}.parse.retry")
            return
        self._queue.clear()
        self._queued = 0
        self._busy = True

    def _again(self) -> None:
        self._busy = False
        self._next()

    def _feed(self, pieces: list[tuple[int, bytes]]) -> list[tuple[int, tuple[Sample | Fault, ...]]]:
        """On the worker: the one thing of a port that ever runs there."""
        return [(stamp, tuple(self._parser.feed(data))) for stamp, data in pieces]

    def _parsed(self, result: list[tuple[int, tuple[Sample | Fault, ...]]]) -> None:
        self._busy = False
        for stamp, items in result:
            self._ctx.accept(items, stamp)
        self._next()
        if self._paused and self._ended is None and self._queued < QUEUED_BYTES:
            self._paused = False
            if not self._ctx.blocked:
                self.event.resume()
        if self._ended is not None and not self._busy and not self._queue:
            self._finish()

    def _failed(self, error: BaseException) -> None:
        self._busy = False
        self._queue.clear()
        self._queued = 0
        self._ctx.accept([Fault("parser", f"{type(error).__name__}: {error}")], self._ctx.clock.mono_ns())
        if self._ended is not None:
            ended, self._ended = self._ended, None
            ended()
        elif isinstance(error, TimeoutError):  # a WorkTimeout, or a process that did not answer
            self._ctx.lost(f"its parser did not return within {PARSE_TIMEOUT:g} s")
        else:
            self._ctx.owner.failed(error)

    def _finish(self) -> None:
        if not self._on_worker or self._ctx.parsing is None:
            self._finished(tuple(self._parser.end()))
            return
        try:
            self._ctx.manager.execute_work(
                lambda: tuple(self._parser.end()),
                on_done=self._finished,
                on_error=self._failed,
                key=self._ctx.device,
                timeout=PARSE_TIMEOUT,
                name=f"{self._ctx.device}.parse.end",
            )
        except WorkRejected as full:
            self._failed(full)

    def _finished(self, items: tuple[Sample | Fault, ...]) -> None:
        ended, self._ended = self._ended, None
        self._ctx.accept(items, self._ctx.clock.mono_ns())
        if ended is not None:
            ended()
