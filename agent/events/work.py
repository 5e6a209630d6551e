"""A piece of work: the handle its owner has, and what the pool notes on it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

from .event import Event, Tally

if TYPE_CHECKING:
    from .delivery import Delivery
    from .worker import Worker


class State(enum.IntEnum):
    """The life of a piece of work. From FINISHED on nothing more is done for it by a worker."""

    WAITING = 0  # in a worker's queue, or behind an earlier piece of its key
    RUNNING = 1
    FINISHED = 2  # returned or raised; its owner has not heard yet
    SETTLED = 3  # its owner has heard
    CANCELLED = 4
    TIMED_OUT = 5


class Work(Event):
    """The handle of a piece of work. ``fired`` is 1 once its owner has heard of it."""

    __slots__ = (
        "_active",
        "_delivery",
        "began",
        "cost",
        "error",
        "key",
        "on_done",
        "on_error",
        "queued",
        "result",
        "settle",
        "spent",
        "starved",
        "state",
        "timeout",
        "weight",
        "worker",
    )

    def __init__(
        self,
        delivery: Delivery,
        fn: Callable[..., object],
        args: tuple[object, ...],
        tally: Tally,
        key: Hashable = None,
        weight: float = 1.0,
        timeout: float | None = None,
        on_done: Callable[..., object] | None = None,
        on_error: Callable[..., object] | None = None,
        settle: Callable[[Work], None] | None = None,
    ) -> None:
        self._delivery = delivery
        self._fn = fn
        self._args = args
        self._tally = tally
        self._active = True
        self.fired = 0
        self.key = key
        self.weight = weight
        self.timeout = timeout
        self.on_done = on_done
        self.on_error = on_error
        self.settle = (
            settle  # for the manager's own pieces (Dispatch.WORKER): who is told instead of on_done and on_error
        )
        self.state = State.WAITING
        self.cost = 0.0  # seconds it is expected to take: what it adds to its worker's load
        self.queued = 0.0  # by time.monotonic()
        self.began: float | None = None  # by the manager's clock; noted only where a time-out counts from it
        self.spent = 0.0
        self.starved = False
        self.worker: Worker | None = None
        self.result: object = None
        self.error: BaseException | None = None

    @property
    def active(self) -> bool:
        return self._active

    @property
    def done(self) -> bool:
        """True once nothing more can come of it: its owner has heard of its end, or it was cancelled."""
        return not self._active

    def cancel(self) -> None:
        """Do not run it; if it runs, drop what comes of it (a thread cannot be stopped). Its owner is not called."""
        self._delivery.cancel(self)
