"""The order in which readings wait: in memory at both ends, in between on disk alone. Pure: it knows no disk.

    flying | front ... (away) ... back

``flying`` is taken and not acknowledged. ``front`` is what is taken next. ``away`` is how many of those behind it are
on disk alone; they come back by ``load``. ``back`` is newer than all that is away. While nothing is away, everything is
in front and ``back`` is empty.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence

from agent.model import Reading

KEEP = 2000
"""Readings at the front that stay in memory though they are on disk: two turns of the publisher, some 0.7 MB."""


class Lane:
    """One stream of readings, oldest first; ``Reading.row`` grows along it."""

    __slots__ = ("after", "away", "away_bytes", "back", "flying", "front", "upto")

    def __init__(self) -> None:
        self.flying: dict[int, Reading] = {}  # by row, in the order of take(), which is that of rewind()
        self.front: deque[Reading] = deque()
        self.back: deque[Reading] = deque()
        self.away = 0
        self.away_bytes = 0
        """Size of the bodies that are away."""
        self.after = 0
        """What is away has rows after this one ..."""
        self.upto = 0
        """... up to this one."""

    @property
    def waiting(self) -> int:
        """Readings that are not taken."""
        return len(self.front) + self.away + len(self.back)

    @property
    def held(self) -> int:
        """Readings in memory."""
        return len(self.flying) + len(self.front) + len(self.back)

    def append(self, reading: Reading) -> None:
        (self.back if self.away else self.front).append(reading)

    def in_memory(self) -> Iterator[Reading]:
        """All that is in memory, oldest first."""
        yield from self.flying.values()
        yield from self.front
        yield from self.back

    # --- to the disk and back

    def let_go(self, stored: int) -> None:
        """Rows up to ``stored`` are on disk: past KEEP at the front they need not be in memory."""
        front, back = self.front, self.back
        if self.away:
            while back and back[0].row <= stored:
                self._send_away(back.popleft())
            return
        if len(front) <= KEEP or front[KEEP].row > stored:
            return
        self.after = front[KEEP - 1].row
        behind = [front.pop() for _ in range(len(front) - KEEP)]
        while behind and behind[-1].row <= stored:
            self._send_away(behind.pop())
        back.extend(reversed(behind))

    def _send_away(self, reading: Reading) -> None:
        self.away += 1
        self.away_bytes += len(reading.body)
        self.upto = reading.row

    def load(self, readings: Sequence[Reading], *, all_of_it: bool) -> tuple[int, int]:
        """The next ones of those away, read from the disk. all_of_it: there are no more.

        How many turned out missing, and the size of their bodies: the disk has lost them.
        """
        if readings:
            self.front.extend(readings)
            self.away -= len(readings)
            self.away_bytes -= sum(len(reading.body) for reading in readings)
            self.after = readings[-1].row
        missing = (0, 0)
        if all_of_it:
            missing, self.away, self.away_bytes = (self.away, self.away_bytes), 0, 0
        if not self.away:
            self.front.extend(self.back)
            self.back.clear()
        return missing

    def thinned(self, count: int, size: int) -> None:
        """So many of those away, with so many bytes in their bodies, are no more."""
        self.away -= count
        self.away_bytes -= size

    def older(self, count: int, size: int, upto: int) -> None:
        """A file turns up with ``count`` readings, rows up to ``upto``, that are older than all here."""
        self.back.extendleft(reversed(self.front))
        self.front.clear()
        self.away, self.away_bytes, self.after, self.upto = count, size, 0, upto
        if not count:
            self.load((), all_of_it=True)

    # --- to the link and back

    def rewind(self) -> None:
        """What is in flight comes first again, in the old order."""
        for reading in reversed(self.flying.values()):
            if not self.away or reading.row <= self.after:  # taken before all that waits: it belongs in front as it is
                self.front.appendleft(reading)
            elif reading.row <= self.upto:  # newer than a file that turned up late, and on disk with what is away
                self.away += 1
                self.away_bytes += len(reading.body)
            else:
                self.back.appendleft(reading)
        self.flying.clear()

    def join(self, newer: Lane) -> None:
        """Take over all that waits in another lane, every reading of which is newer. Neither has anything in flight."""
        if newer.away:
            # Rows reach the disk in order: what is older than those is there as well, and need not stay in memory.
            if not self.away:
                self.after = self.front[-1].row if self.front else 0
            for reading in (*self.back, *newer.front):
                self._send_away(reading)
            self.away += newer.away
            self.away_bytes += newer.away_bytes
            self.upto = newer.upto
            self.back = newer.back
        else:
            (self.back if self.away else self.front).extend(newer.front)
        newer.front, newer.back, newer.away, newer.away_bytes = deque(), deque(), 0, 0

    def thin(self, nth: int, cursor: int, most: int) -> tuple[list[Reading], int, bool]:
        """Take out of the front, behind row ``cursor``, what is no ``nth`` reading of its device; looks at ``most``.

        What was taken out, the row up to which it looked, and whether it came to the end. By ``seq``, not by place, so
        that a second round with twice the ``nth`` leaves evenly spaced readings, whatever was thinned before.
        """
        front = self.front
        begin = bisect_right(front, cursor, key=_row)
        count = min(most, len(front) - begin)
        front.rotate(-begin)
        kept: list[Reading] = []
        out: list[Reading] = []
        for _ in range(count):
            reading = front.popleft()
            (out if reading.seq % nth else kept).append(reading)
            cursor = reading.row
        front.extendleft(reversed(kept))
        front.rotate(begin)
        return out, cursor, begin + count == len(front) + len(out)


def _row(reading: Reading) -> int:
    return reading.row
