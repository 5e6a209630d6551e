"""The words of the event manager: enumerations, errors, the report of a slow callback, and the frozen statistics."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Dispatch(enum.Enum):
    """Where the callback of a timer or a descriptor runs."""

    INLINE = "inline"
    """On the loop's thread, in its turn. The default."""
    WORKER = "worker"
    """On a thread of the pool, never twice at the same time; a descriptor is disarmed meanwhile."""
    AUTO = "auto"
    """Inline, until it was flagged slow three times; from then on as WORKER."""


class Missed(enum.Enum):
    """What a periodic timer does about whole periods that went by while the loop was held."""

    SKIP = "skip"
    """Fire once, count the rest in ``skipped``, and go on at the next point of the original grid. The default."""
    CATCH_UP = "catch_up"
    """Fire once for each missed point, merged with other timers by due time."""


@dataclass(frozen=True, slots=True)
class SlowCallback:
    """One call that held the loop's thread longer than ``slow_after``.

    file and line say where the function is defined (None for built-ins). duration is in seconds of real time. running
    is True while the call has not returned. stack is what the watcher saw of the call while it ran, outermost first,
    each entry ``file:line function``; empty if the call was over before the watcher looked.
    """

    name: str
    function: str
    file: str | None
    line: int | None
    duration: float
    running: bool = False
    stack: tuple[str, ...] = ()

    def __str__(self) -> str:
        verb = "has been running for" if self.running else "held the loop for"
        where = f" ({self.file}:{self.line})" if self.file else ""
        return f"{self.name}: {self.function}{where} {verb} {self.duration:.3f} s"


class SlowCallbackError(RuntimeError):
    """A callback held the loop too long under ``on_slow="stop"``. Leaves ``loop()``; ``slow`` names the offender."""

    def __init__(self, slow: SlowCallback) -> None:
        super().__init__(str(slow))
        self.slow = slow


class WorkRejected(RuntimeError):  # noqa: N818 - the contract's name
    """Not taken, as the queue is full: raised at the caller. Or the manager was closed first: given to ``on_error``."""


class WorkTimeout(TimeoutError):  # noqa: N818 - the contract's name
    """It took longer than its ``timeout``, or was still running when the manager was closed. Given to ``on_error``."""


@dataclass(frozen=True, slots=True)
class CallbackStats:
    """All calls under one name: number, longest and sum in seconds, how many were flagged slow, how many raised.

    For ``Dispatch.WORKER`` the time is the worker's, not the loop's.
    """

    name: str
    count: int
    worst: float
    total: float
    slow: int
    errors: int


@dataclass(frozen=True, slots=True)
class SlowStats:
    """All slow calls under one name: number, longest and sum in seconds, and the function that was last flagged."""

    name: str
    count: int
    worst: float
    total: float
    function: str
    file: str | None
    line: int | None


@dataclass(frozen=True, slots=True)
class WorkStats:
    """The pool of workers. Times in seconds of real time."""

    workers: int
    """Threads that take work now."""
    idle: int
    """... of which have none."""
    abandoned: int
    """Threads still held by calls that timed out."""
    queued: int
    """Pieces that wait, those behind an earlier piece of their key included."""
    running: int
    submitted: int
    finished: int
    """Returned or raised; not those that timed out or were cancelled."""
    failed: int
    timed_out: int
    rejected: int
    starved: int
    """Pieces that waited longer than 0.1 s."""
    oldest_wait: float
    """How long the piece that has waited longest is waiting now; 0.0 if none waits."""
    longest_wait: float
    """The longest any piece waited before it began."""


@dataclass(frozen=True, slots=True)
class Stats:
    """One look at a manager. Times in seconds."""

    turns: int
    """Turns of the loop so far: a supervisor that sees it stand still while events are due sees a hung loop."""
    callbacks: int
    timers: int
    descriptors: int
    signals: int
    lag: float
    """How late the latest timer of the last 10 to 20 s was: what the loop's health is judged by."""
    worst_lag: float
    """The same since the start."""
    running: SlowCallback | None
    """The call that holds the loop at this moment and is past ``slow_after``; only seen from another thread."""
    slow: tuple[SlowStats, ...]
    """The worst in total first."""
    events: tuple[CallbackStats, ...]
    """By name, the most expensive first."""
    work: WorkStats
