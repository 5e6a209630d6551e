"""What the outbox writes down beside readings: which boot this is, what its clock shows, when that was last true."""

from __future__ import annotations

import random
from typing import Protocol

from agent.clock import BUILT_NS
from agent.outbox_store import Boot
from agent.outbox_writer import Job

SAVE_WALL_EVERY = 60.0
"""Seconds between two notes of the wall time, which ride along with what is written anyway."""
CLOCK_MOVED_NS = 1_000_000
"""A change of the clock's offset that is worth writing down with the next group."""


class OutboxClock(Protocol):
    """What the outbox needs of ``agent.clock.Clock``."""

    @property
    def boot_id(self) -> str: ...

    @property
    def offset_ns(self) -> int: ...

    def mono_ns(self) -> int: ...

    def wall_ns(self, mono_ns: int) -> int: ...

    def trusted(self) -> bool: ...

    def remember(self, saved_wall_ns: int) -> None: ...

    def adopt(self, offset_ns: int, trusted: bool) -> None: ...


class Notes:
    """Which of it a job carries: nothing of it makes a write of its own."""

    def __init__(self, clock: OutboxClock) -> None:
        self._clock = clock
        self._boot_id = ""
        self._saved: Boot | None = None
        self._wall_saved = float("-inf")

    def job(self) -> Job:
        """An empty job, with the clock as it is now."""
        self._boot_id = self._boot_id or self._clock.boot_id
        boot = Boot(self._boot_id, self._clock.offset_ns, self._clock.trusted())
        return Job(boot, self._clock.wall_ns(self._clock.mono_ns()))

    def found(self, saved_wall_ns: int, boot: Boot | None) -> None:
        """What the file says: the last true time that was seen, and what a process of this boot knew of the clock."""
        self._saved = boot
        self._clock.remember(saved_wall_ns)
        if boot is not None and boot.trusted:
            self._clock.adopt(boot.offset_ns, True)

    def add(self, job: Job, now: float, *, at_once: bool = False) -> None:
        """To a job that is written anyway: the clock's offset where it has changed, now and then (or now) the time."""
        saved, boot = self._saved, job.boot
        moved = saved is None or saved.trusted != boot.trusted or abs(saved.offset_ns - boot.offset_ns) > CLOCK_MOVED_NS
        job.save_boot = moved or at_once
        if boot.trusted and (at_once or now - self._wall_saved > SAVE_WALL_EVERY):
            job.notes["saved_wall_ns"] = job.wall_ns
            self._wall_saved = now

    def written(self, job: Job) -> None:
        if job.save_boot:
            self._saved = job.boot

    def jump(self) -> int:
        """A number that no earlier process has reached, where no file says so: milliseconds since the epoch.

        By a clock that shows less than the release date it is anybody's guess: somewhere in the 49 days after that.
        """
        now = self._clock.wall_ns(self._clock.mono_ns()) // 1_000_000
        built = BUILT_NS // 1_000_000
        return now if now >= built else built + random.getrandbits(32)
