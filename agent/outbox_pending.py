"""What of the outbox is not on disk yet, and what is there still and need not be. Pure: the time is handed in."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from agent.model import Reading
from agent.outbox_alarm import NEVER
from agent.outbox_settings import Durability

FORGET_AFTER = 0.1
"""Seconds that an acknowledged reading may stay on disk: what a crash in between makes come twice. Many go at once."""
FORGET_MOST = 1000
"""Acknowledged readings on disk that are not waited with any longer."""
GROUP_MOST = 2000
"""Readings in one commit, on a disk that takes GROUP_TIME for it: 1 MB of memory meanwhile."""
GROUP_LARGEST = 8000
"""Readings in one commit of a slow disk: what it takes for each is little beside what it takes for each commit."""
GROUP_TIME = 0.02
"""Seconds; a commit that took longer makes the next group larger, in proportion."""
CROWD = 4096
"""Readings in memory past which, without a link, none waits for ``spill_after``: a flood would take 0.3 kB for each."""
ALONG = 0.9
"""The part of ``spill_after`` from which a reading goes along when an older one is written: forty commits a second."""


class Pending:
    """Readings to be written, in order of arrival, and rows to be deleted. spill_after: in seconds."""

    def __init__(self, durability: Durability, spill_after: float) -> None:
        self.most = GROUP_MOST
        """Readings in the next commit, at most."""
        self.handed = 0
        """Rows up to this one are on disk, or with the job that is under way."""
        self._durability = durability
        self._spill_ns = int(spill_after * 1e9)
        self._unwritten: deque[Reading] = deque()  # those that are gone are skipped when they come to the front
        self._forgotten: list[int] = []
        self._forget_at = NEVER

    @property
    def idle(self) -> bool:
        """Nothing is to be written or deleted, now or later."""
        return not (self._unwritten or self._forgotten)

    @property
    def unwritten(self) -> bool:
        return bool(self._unwritten)

    def crowded(self, connected: bool) -> bool:
        """More is in memory than need be, since without a link none of it can be acknowledged in time."""
        return len(self._unwritten) > CROWD and not connected

    def keep(self, readings: Iterable[Reading]) -> None:
        """These are new."""
        if self._durability != "memory":
            self.trim()
            self._unwritten.extend(readings)

    def trim(self) -> None:
        """Let go of what was acknowledged before it was due."""
        unwritten = self._unwritten
        while unwritten and unwritten[0].gone:
            unwritten.popleft()

    def forget(self, row: int) -> None:
        """The reading of this row is acknowledged or dropped: it need not be on disk."""
        if row <= self.handed:
            self._forgotten.append(row)

    def group(self, now_ns: int, *, connected: bool, everything: bool) -> list[Reading]:
        """What is to be written now, oldest first. everything: whatever its age, as at the end."""
        unwritten = self._unwritten
        if not unwritten or self._durability == "memory":
            return []
        youngest = now_ns
        everything = everything or self.crowded(connected)
        if self._durability == "spill" and not everything:
            if now_ns - unwritten[0].mono_ns < self._spill_ns:
                return []
            if connected:  # an acknowledgement may still come in time; without a link none can
                youngest -= int(self._spill_ns * ALONG)
        group: list[Reading] = []
        while unwritten and len(group) < self.most and (unwritten[0].mono_ns <= youngest or everything):
            reading = unwritten.popleft()
            if not reading.gone:
                group.append(reading)
                self.handed = reading.row
        return group

    def took(self, seconds: float) -> None:
        """How long the last commit took."""
        self.most = min(GROUP_LARGEST, max(GROUP_MOST, int(GROUP_MOST * seconds / GROUP_TIME)))

    def deletions(self, now: float, *, along: bool) -> list[int]:
        """Rows to be deleted now. along: something is written anyway."""
        if not (along or now >= self._forget_at or len(self._forgotten) > FORGET_MOST):
            return []
        rows, self._forgotten = self._forgotten, []
        self._forget_at = NEVER
        return rows

    def take_back(self, insert: Sequence[Reading], delete: Sequence[int]) -> None:
        """A job has failed: all of it is still to be done."""
        self._unwritten.extendleft(reversed([reading for reading in insert if not reading.gone]))
        self.delete_again(delete)

    def delete_again(self, rows: Sequence[int]) -> None:
        if rows:
            self._forgotten[:0] = rows
            self._forget_at = 0.0

    def write_again(self, readings: Iterable[Reading]) -> None:
        """The file is another one: these have to be written anew."""
        self._unwritten = deque(sorted(readings, key=_row))

    def due(self, now: float, now_ns: int, connected: bool) -> float:
        """When something has to be written or deleted, in seconds like ``now``."""
        if self._forgotten and self._forget_at == NEVER:
            self._forget_at = now + FORGET_AFTER
        if self.crowded(connected):
            return now
        if not self._unwritten or self._durability != "spill":
            return self._forget_at
        left = self._spill_ns - (now_ns - self._unwritten[0].mono_ns)
        return min(self._forget_at, now + max(0, left) / 1e9)


def _row(reading: Reading) -> int:
    return reading.row
