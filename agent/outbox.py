"""Where readings wait until the broker has acknowledged them."""

from __future__ import annotations

import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from agent.logline import line
from agent.model import Reading
from agent.quantity import Duration, Interval, Size


class OutboxSettings(BaseModel):
    """How much may wait, for how long, and what survives a restart."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path | None = Field(
        None,
        description="File of the outbox. Default: outbox.db in $STATE_DIRECTORY, else in ~/.local/state/outstation.",
    )
    durability: Literal["memory", "spill", "strict"] = Field(
        "spill",
        description="memory: nothing on disk. spill: on disk is what stays unacknowledged for spill_after. "
        "strict: on disk before it is sent.",
    )
    spill_after: Duration = Field(0.25, description="How long a reading may stay unacknowledged in memory alone.")
    max_bytes: Size = Field(256_000_000, ge=65_536, description="Most that may wait, in bytes.")
    max_age: Interval = Field(30 * 86_400.0, description="Readings older than this are dropped.")
    policy: Literal["drop_oldest", "drop_newest", "thin", "block"] = Field(
        "drop_oldest",
        description="When it is full: drop_oldest or drop_newest; thin: keep every n-th of the oldest; "
        "block: stop reading the devices.",
    )
    replay: Literal["fifo", "live_first"] = Field(
        "fifo", description="How a backlog goes out: oldest first, or beside the live readings."
    )

    def file(self) -> Path:
        """The outbox's file: ``path``, or by default below $STATE_DIRECTORY (systemd.exec(5)) or XDG_STATE_HOME."""
        if self.path is not None:
            return self.path
        state = os.environ.get("STATE_DIRECTORY", "").split(":")[0]  # several directories are joined by colons
        if state:
            return Path(state) / "outbox.db"
        home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        return Path(home) / "outstation" / "outbox.db"


class Outbox(Protocol):
    """Readings on their way: put at one end, taken at the other, forgotten only when acknowledged.

    The read position (how far ``take`` got) and the acknowledged position are two things: ``rewind`` sets the first
    back to the second. A reading between them is in flight and is never dropped. All of it is called on the loop's
    thread; whatever works with a disk does so elsewhere, and calls ``on_ready`` when there is something to take, from
    within ``put`` or later.
    """

    on_ready: Callable[[], None]
    dropped: dict[str, int]
    """Readings lost to a bound, by device."""

    @property
    def depth(self) -> int:
        """Readings that are not acknowledged."""

    @property
    def waiting(self) -> int:
        """Those of them that are not taken."""

    @property
    def size(self) -> int:
        """What they take, in bytes."""

    def next_seq(self, device: str) -> int:
        """A number for the device's next reading; grows by one and is never given twice."""

    def put(self, readings: Sequence[Reading]) -> None:
        """Keep them, and drop by policy what is too much."""

    def take(self, limit: int) -> list[Reading]:
        """The next ones in order, at most ``limit``; they are in flight from now on."""

    def ack(self, readings: Iterable[Reading]) -> None:
        """The broker has them (or, at QoS 0, the socket): forget them. Those that are not in flight are ignored."""

    def discard(self, readings: Iterable[Reading]) -> None:
        """They can never be delivered: forget them, and count each as dropped."""

    def rewind(self) -> None:
        """The link is lost: what is in flight will be taken again, first and in the old order."""


def _nothing() -> None:
    pass


# A Reading, its seq and stamp as integers, its place in a deque, and the allocator's rounding of all four (measured:
# 249 bytes with a body of 38); its body comes on top. While in flight a dict's entry adds 92 more.
_READING_COST = sys.getsizeof(Reading("", 1 << 60, 1 << 60, b"")) + 2 * sys.getsizeof(1 << 60) + 8 + 24


def cost(reading: Reading) -> int:
    """Bytes of memory that a waiting reading takes."""
    return _READING_COST + sys.getsizeof(reading.body)


class MemoryOutbox:
    """Keeps what is unacknowledged in memory, and loses it with the process."""

    def __init__(
        self, settings: OutboxSettings, mono_ns: Callable[[], int], *, log: logging.Logger | None = None
    ) -> None:
        self.on_ready: Callable[[], None] = _nothing
        self.dropped: dict[str, int] = {}
        self._max_bytes = settings.max_bytes
        self._max_age_ns = int(settings.max_age * 1_000_000_000)
        self._keep_old = settings.policy == "drop_newest"
        self._settings = settings
        self._mono_ns = mono_ns
        self._log = log or logging.getLogger("outstation.outbox")
        self._waiting: deque[Reading] = deque()
        self._flying: dict[int, Reading] = {}  # by id(): in the order of take(), which is the order of rewind()
        self._size = 0
        self._seq: dict[str, int] = {}

    def start(self) -> None:
        """Say which settings have no effect yet."""
        if self._settings.durability != "memory":
            self._log.warning(
                line(
                    "outbox.memory",
                    durability=self._settings.durability,
                    reason="this version keeps readings in memory alone",
                )
            )
        if self._settings.policy in ("thin", "block"):
            self._log.warning(
                line("outbox.policy", policy=self._settings.policy, reason="behaves as drop_oldest in this version")
            )

    @property
    def depth(self) -> int:
        return len(self._waiting) + len(self._flying)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def size(self) -> int:
        return self._size

    def next_seq(self, device: str) -> int:
        seq = self._seq[device] = self._seq.get(device, 0) + 1
        return seq

    def put(self, readings: Sequence[Reading]) -> None:
        waiting = self._waiting
        for reading in readings:
            needed = cost(reading)
            if self._size + needed > self._max_bytes and not self._make_room(needed):
                self._count(reading)
                continue
            self._size += needed
            waiting.append(reading)
        self.expire()
        if waiting:
            self.on_ready()

    def _make_room(self, needed: int) -> bool:
        """Drop the oldest until ``needed`` bytes fit. False: they never will, or the policy keeps the old ones."""
        if self._keep_old:
            return False
        while self._waiting and self._size + needed > self._max_bytes:
            self._drop_first()
        return self._size + needed <= self._max_bytes

    def _drop_first(self) -> None:
        reading = self._waiting.popleft()
        self._size -= cost(reading)
        self._count(reading)

    def _count(self, reading: Reading) -> None:
        self.dropped[reading.device] = self.dropped.get(reading.device, 0) + 1

    def expire(self) -> None:
        """Drop what is older than max_age. Readings come nearly in order of time, so the first ones tell."""
        oldest = self._mono_ns() - self._max_age_ns
        while self._waiting and self._waiting[0].mono_ns < oldest:
            self._drop_first()

    def take(self, limit: int) -> list[Reading]:
        self.expire()
        waiting, flying = self._waiting, self._flying
        taken = []
        for _ in range(min(limit, len(waiting))):
            reading = waiting.popleft()
            flying[id(reading)] = reading
            taken.append(reading)
        return taken

    def ack(self, readings: Iterable[Reading]) -> None:
        for reading in readings:
            if self._flying.pop(id(reading), None) is not None:
                self._size -= cost(reading)

    def discard(self, readings: Iterable[Reading]) -> None:
        for reading in readings:
            if self._flying.pop(id(reading), None) is not None:
                self._size -= cost(reading)
                self._count(reading)

    def rewind(self) -> None:
        # All that is in flight was taken before all that waits, so that it belongs in front as it is.
        self._waiting.extendleft(reversed(self._flying.values()))
        self._flying.clear()
