"""What FakeContext hands out: a timer, a watch, a piece of work."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from agent.testing.gpio import FakeGpio
from agent.testing.port import FakePort


class FakeTimer:
    """A timer on the grid of its first due time: it does not drift, and fires once where whole periods were missed."""

    def __init__(
        self,
        now: float,
        interval: float | None,
        delay: float,
        order: int,
        fn: Callable[..., object],
        args: tuple[Any, ...],
        name: str | None,
    ) -> None:
        """interval: None for a timer that fires once. ValueError as from the event manager."""
        if interval is not None and not (math.isfinite(interval) and interval > 0):
            raise ValueError(f"an interval is finite and more than 0, not {interval!r}")
        if not (math.isfinite(delay) and (delay >= 0 if interval is not None else delay > 0)):
            raise ValueError(f"a delay is finite and not negative, not {delay!r}")
        self.name = name or getattr(fn, "__name__", "timer")
        self.interval = interval
        self.fn = fn
        self.args = args
        self.fired = 0
        self.skipped = 0
        self.active = True
        self._first = now + delay
        self._periods = 0
        self._order = order

    @property
    def due(self) -> float:
        return self._first + self._periods * (self.interval or 0.0)

    def step(self, now: float) -> bool:
        """It fires now: move to the next due time. Whether there is one."""
        self.fired += 1
        if self.interval is None:
            self.active = False
            return False
        missed = max(0, math.floor((now - self.due) / self.interval + 1e-9))
        self.skipped += missed
        self._periods += 1 + missed
        return True

    def cancel(self) -> None:
        self.active = False

    def __lt__(self, other: FakeTimer) -> bool:
        return (self.due, self._order) < (other.due, other._order)


class FakeWatch:
    """A watched port."""

    def __init__(self, port: FakePort | FakeGpio, on_readable: Callable[[], object]) -> None:
        self.port = port
        self.on_readable = on_readable
        self.active = True

    def cancel(self) -> None:
        self.active = False


class FakeWork:
    """A piece of work that was submitted."""

    def __init__(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        on_done: Callable[[Any], object] | None,
        on_error: Callable[[BaseException], object] | None,
        timeout: float | None,
    ) -> None:
        self.fn = fn
        self.args = args
        self.on_done = on_done
        self.on_error = on_error
        self.timeout = timeout
        self.done = False
        self.deadline: FakeTimer | None = None
        self._cancelled = False

    @property
    def active(self) -> bool:
        return not self.done and not self._cancelled

    def cancel(self) -> None:
        self._cancelled = True
        if self.deadline is not None:
            self.deadline.cancel()
