"""Where readings wait until the broker has acknowledged them: in memory, and beyond that on disk.

Here are the bounds, the order and what is forgotten, all of it on the loop's thread; ``outbox_disk`` decides what is
written when, and has it done by its thread.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from agent.errors import OutboxBusy
from agent.events import EventManager
from agent.logline import line
from agent.model import Reading
from agent.outbox_disk import Disk
from agent.outbox_lane import Lane
from agent.outbox_notes import OutboxClock
from agent.outbox_pending import CROWD
from agent.outbox_settings import OutboxSettings

MEMORY_MOST = 32_000_000
"""Bytes of memory at most, where there is a disk: more waits only while that does not take it."""
BRAKE = 6_000_000
"""Bytes of memory at which devices rest, as long as the disk (or, without one, the link) works and will catch up."""
SLACK = 1_000_000
"""Bytes by which the bound may be passed while the disk makes room, or the devices come to rest under "block"."""
RESUME_AT = 0.9
"""The part of ``max_bytes`` below which blocked devices are read again."""
SLICE = 4096
"""Readings looked at in one step of thinning: a millisecond or two."""

ROW_COST = 64
"""Bytes that a reading takes on disk beside its body: six integers and SQLite's own, the fill of its pages included."""

# A Reading, its seq and stamp as integers, its place in a deque, and the allocator's rounding of all four (measured:
# 281 bytes with a body of 38). While in flight a dict's entry adds 92 more.
_OBJECTS = sys.getsizeof(Reading("", 1 << 60, 1 << 60, b"")) + 3 * sys.getsizeof(1 << 60) + sys.getsizeof(b"")
MEMORY_COST = _OBJECTS + 8 + 24
"""Bytes of memory that a waiting reading takes beside its body."""


def _nothing(*_args: object) -> None:
    pass


class Outbox:
    """Readings on their way: put at one end, taken at the other, forgotten only when acknowledged.

    The read position (how far ``take`` got) and the acknowledged position are two things: ``rewind`` sets the first
    back to the second. A reading between them is in flight and is never dropped. There are two streams under
    ``live_first``: what came since the link is up, and what is older; in each the order is kept.

    on_ready: there is something to take; called from within ``put`` or later. on_block: the devices shall rest (True),
    or be read again.
    """

    def __init__(
        self,
        manager: EventManager,
        settings: OutboxSettings,
        clock: OutboxClock,
        *,
        agent: str = "",
        log: logging.Logger | None = None,
    ) -> None:
        self.on_ready: Callable[[], object] = _nothing
        self.on_block: Callable[[bool], object] = _nothing
        self.dropped: dict[str, int] = {}
        """Readings lost to a bound, by device."""
        self.damaged = 0
        """Readings that the disk has lost."""
        self.blocked = False
        self.connected = False
        self._braked = False
        self.live_first = settings.replay == "live_first"
        self._clock = clock
        self._settings = settings
        self._most = settings.max_bytes
        self._max_age_ns = int(settings.max_age * 1_000_000_000)
        self._durable = settings.durability != "memory"
        self._strict = settings.durability == "strict"
        self._each = ROW_COST if self._durable else MEMORY_COST  # bytes beside its body
        self._old = Lane()  # all there is under fifo
        self._new = Lane()  # under live_first: what came since the link is up
        self._size = 0
        self._row = 0
        self._nth, self._cursor = 2, 0  # of the present round of thinning
        self._log = log or logging.getLogger("outstation.outbox")
        self._disk = Disk(manager, settings, settings.file(), clock, self, agent=agent, log=self._log)
        self.next_seq = self._disk.numbering.take
        self.reserve = self._disk.reserve

    # --- what it holds

    @property
    def depth(self) -> int:
        """Readings that are not acknowledged."""
        return self.waiting + len(self._old.flying) + len(self._new.flying)

    @property
    def waiting(self) -> int:
        """Those of them that are not taken."""
        return self._old.waiting + self._new.waiting

    @property
    def live(self) -> int:
        """Those of the waiting ones that came since the link is up, under ``live_first``."""
        return self._new.waiting

    @property
    def size(self) -> int:
        """What they take, in bytes: of the disk, or under ``memory`` of memory."""
        return self._size

    @property
    def busy(self) -> OutboxBusy | None:
        """Another agent has the file; this one has ended its loop."""
        return self._disk.busy

    @property
    def in_memory(self) -> int:
        """Bytes of memory that they take, closely."""
        held = self._old.held + self._new.held
        if not self._durable:
            return self._size
        away = self._old.away + self._new.away
        bodies = self._size - ROW_COST * (held + away) - self._old.away_bytes - self._new.away_bytes
        return bodies + held * MEMORY_COST

    @property
    def lanes(self) -> tuple[Lane, Lane]:
        """The older stream and the live one: for ``outbox_disk``."""
        return self._old, self._new

    def totals(self) -> dict[str, int | str]:
        """What the next process need not count: readings and the size of their bodies."""
        return {"count": self.depth, "size": self._size - ROW_COST * self.depth}

    def report(self) -> dict[str, Any]:
        """Its part of the status report."""
        return {
            "depth": self.depth,
            "waiting": self.waiting,
            "bytes": self._size,
            "memory_bytes": self.in_memory,
            "dropped": dict(self.dropped),
            "damaged": self.damaged,
            "blocked": self.blocked,
            "disk": self._disk.report(),
        }

    # --- its life

    def start(self, devices: Sequence[str], on_open: Callable[[], object]) -> None:
        """Open the file; ``on_open`` is called when devices have their numbers, also where the disk does not answer."""
        self._disk.start(devices, on_open)

    def stop(self, on_stopped: Callable[[], object], timeout: float) -> None:
        """Keep on disk what is left (but under ``memory``), and close; on_stopped within ``timeout`` seconds."""
        self._disk.stop(on_stopped, timeout)

    def clock_set(self) -> None:
        """The wall clock was set: write down what it is now, for readings that a later process has to settle."""
        self._disk.clock_set()

    # --- readings come

    def put(self, readings: Sequence[Reading]) -> None:
        """Keep readings of one device, in order; drop by policy what is too much."""
        lane = self._new if self.connected and self.live_first else self._old
        tight = self._old.held + self._new.held > CROWD and self._heavy()
        kept: list[Reading] = []
        for reading in readings:
            needed = self._each + len(reading.body)
            if (tight or self._size + needed > self._most) and not self._make_room(needed, tight):
                self._lose(reading)
                continue
            self._size += needed
            self._row += 1
            reading.row = self._row
            lane.append(reading)
            kept.append(reading)
        if kept:
            if (resumed := self._disk.numbering.resumed) and kept[0].device in resumed:
                resumed.discard(kept[0].device)
                kept[0].resumed = True
            if self._strict:
                self._disk.keep(kept)
        if not self.connected:  # else take() does
            self._expire()
        if self._old.front or self._new.front:
            self.on_ready()
        if kept and not self._strict:  # they are on their way meanwhile
            self._disk.keep(kept)

    def _heavy(self) -> bool:
        """Much is in memory: let the devices rest, if that will help. True past what memory may hold at all."""
        held = self.in_memory
        if held > BRAKE and (self._disk.works if self._durable else self.connected):
            self._braked = True
            self._block(True)
        return self._durable and held > MEMORY_MOST

    def _make_room(self, needed: int, tight: bool) -> bool:
        """By policy. Whether ``needed`` bytes may be kept now; tight: it is memory that is short, and not the disk."""
        policy = self._settings.policy
        if policy == "block":
            self._block(True)
        if policy in ("block", "drop_newest"):
            return policy == "block" and not tight and self._size + needed <= self._most + SLACK
        if policy == "thin" and not tight and self._thin(needed):
            return True
        while self._size + needed > self._most or tight:
            lane = self._old if self._old.waiting else self._new
            if not lane.front:
                # The oldest are on disk alone: they are brought here to be dropped, and meanwhile there is some slack.
                if lane.away:
                    self._disk.look()
                return bool(lane.away) and not tight and self._size + needed <= self._most + SLACK
            self._drop(lane.front.popleft())
            tight = tight and self.in_memory > MEMORY_MOST
        return True

    def _thin(self, needed: int) -> bool:
        """Keep every n-th of what waits, from the oldest on, a slice at a time; n is doubled after each round."""
        lane = self._old if self._old.waiting else self._new
        # A sixteenth at most: the newest are thinned last, and not at once to where the oldest are.
        most = min(SLICE, max(8, lane.waiting // 16))
        for _ in range(2 * (lane.waiting // most + 1)):
            out, self._cursor, ended = lane.thin(self._nth, self._cursor, most)
            for reading in out:
                self._drop(reading)
            if ended and lane.away:
                self._disk.thin(lane, self._nth, max(self._cursor, lane.after), most)
                return self._size + needed <= self._most + SLACK
            if ended:
                self._next_round()
            if self._size + needed <= self._most:
                return True
        return False

    def _next_round(self) -> None:
        self._nth, self._cursor = self._nth * 2, 0

    def _drop(self, reading: Reading) -> None:
        """It is lost to a bound."""
        self._forget(reading)
        self._lose(reading)

    def _lose(self, reading: Reading) -> None:
        count = self._count(reading)
        if not count & (count - 1):  # the 1st, 2nd, 4th, 8th ...
            self._log.error(line("outbox.dropped", device=reading.device, times=count, policy=self._settings.policy))

    def _count(self, reading: Reading) -> int:
        count = self.dropped[reading.device] = self.dropped.get(reading.device, 0) + 1
        return count

    def _block(self, blocked: bool) -> None:
        if blocked != self.blocked:
            self.blocked = blocked
            self.on_block(blocked)

    def _unblock(self) -> None:
        """The devices may be read again, if there is room."""
        if not self._braked and self._size < self._most * RESUME_AT:
            self._block(False)

    def _expire(self) -> None:
        """Drop what is older than max_age. Readings come nearly in order of time, so the first ones tell."""
        now = self._clock.mono_ns()
        for lane in (self._old, self._new):
            while lane.front and self._age(lane.front[0], now) > self._max_age_ns:
                self._drop(lane.front.popleft())

    def _age(self, reading: Reading, now: int) -> int:
        """In nanoseconds; 0 where nobody can know."""
        if reading.wall_ns is None:
            return now - reading.mono_ns
        return self._clock.wall_ns(now) - reading.wall_ns if self._clock.trusted() and not reading.unsynced else 0

    # --- readings go

    def take(self, limit: int, *, live: bool = False, until_ns: int | None = None) -> list[Reading]:
        """The next ones in order, at most ``limit``; they are in flight from now on.

        live: of the live stream. until_ns: up to the first of this boot that is younger than this monotonic stamp.
        """
        self._expire()
        lane = self._new if live else self._old
        front, flying = lane.front, lane.flying
        last = self._disk.takeable
        taken: list[Reading] = []
        for _ in range(min(limit, len(front))):
            reading = front[0]
            if reading.row > last or (until_ns is not None and reading.mono_ns > until_ns and reading.wall_ns is None):
                break
            flying[reading.row] = front.popleft()
            taken.append(reading)
        if lane.away:
            self._disk.look()
        return taken

    def ack(self, readings: Iterable[Reading]) -> None:
        """The broker has them (or, at QoS 0, the socket): forget them. Those that are not in flight are ignored."""
        for reading in readings:
            if self._landed(reading):
                self._forget(reading)
        self._settled()

    def discard(self, readings: Iterable[Reading]) -> None:
        """They can never be delivered: forget them, and count each as dropped."""
        for reading in readings:
            if self._landed(reading):
                self._forget(reading)
                self._count(reading)
        self._settled()

    def _settled(self) -> None:
        self._disk.settled()
        self.brake_off(self._braked and self.in_memory < BRAKE / 2)

    def _landed(self, reading: Reading) -> bool:
        row = reading.row
        return (self._old.flying.pop(row, None) or self._new.flying.pop(row, None)) is not None

    def _forget(self, reading: Reading) -> None:
        reading.gone = True
        self._size -= self._each + len(reading.body)
        self._disk.forget(reading.row)
        if self.blocked:
            self._unblock()

    def link_up(self) -> None:
        """What comes from now on is live."""
        self.connected = True

    def rewind(self) -> None:
        """The link is lost: what is in flight will be taken again, first and in the old order."""
        self.connected = False
        self._old.rewind()
        self._new.rewind()
        if self.live_first:
            self._old.join(self._new)
        self._disk.settled()
        self.brake_off(not self._durable)

    # --- what the disk tells

    def found(self, count: int, size: int, last: int) -> None:
        """The file holds readings of an earlier process, rows up to ``last``. Called once, before any is written."""
        self._row += last
        for lane in self.lanes:
            for reading in lane.in_memory():
                reading.row += last
            lane.flying = {reading.row: reading for reading in lane.flying.values()}
        self._old.older(count, size, last)
        self._size += size + ROW_COST * count

    def corrected(self, count: int, size: int) -> None:
        """What was found was only estimated: by so much too low. Nothing of it was read yet."""
        self._size += size + ROW_COST * count
        self._old.thinned(-count, -size)
        self._old.load((), all_of_it=not self._old.away)

    def stored(self, row: int) -> None:
        """Rows up to this one are on disk."""
        for lane in self.lanes:
            lane.let_go(row)
        self.brake_off(self.in_memory < BRAKE / 2)

    def brake_off(self, off: bool) -> None:
        """Disk or link have caught up; or do not work, and nothing is won by waiting for them."""
        if self._braked and off:
            self._braked = False
            self._unblock()

    def loaded(self, lane: Lane, readings: Sequence[Reading], *, all_of_it: bool) -> None:
        """Readings are back from the disk."""
        missing, octets = lane.load(readings, all_of_it=all_of_it)
        self.damaged += max(0, missing)
        self._size -= octets + ROW_COST * missing
        self._expire()
        self.on_ready()

    def thinned(self, lane: Lane, dropped: dict[str, int], size: int, last: int) -> None:
        """The disk has thinned what is away, up to a row."""
        count = sum(dropped.values())
        lane.thinned(count, size)
        self._size -= size + ROW_COST * count
        for device, number in dropped.items():
            self.dropped[device] = self.dropped.get(device, 0) + number
        self._cursor = last
        if last >= lane.upto:
            self._next_round()
        if self._size > self._most:
            self._thin(0)
