"""Readings taken from the outbox and put together into messages: one stream, or the live one and the backlog."""

from __future__ import annotations

from collections import deque
from typing import Literal

from agent.outbox import Outbox
from agent.publisher_parts import BacklogParted, Group, Parted

TURN = 1000
"""Readings taken at once: some 5 ms of encoding, so that a backlog does not hold the loop."""
_AUTO = 100  # readings in one message at most under batch = "auto"
_FEW = 4  # readings that go out one by one, under "auto", if no more are waiting


class BacklogGroup(Group):
    """The same, of the backlog under ``live_first``."""

    __slots__ = ()


class Allowance:
    """So many a second, in bursts of a tenth of that. rate: None is as many as there are."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._burst = max(1.0, (rate or 0.0) / 10)
        self._left = self._burst
        self._at: float | None = None

    def most(self, wanted: int, now: float) -> int:
        """How many of those wanted are allowed now. now: in seconds."""
        if self._rate is None:
            return wanted
        if self._at is not None:
            self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        return min(wanted, int(self._left))

    def used(self, count: int) -> None:
        self._left -= count

    @property
    def pause(self) -> float:
        """Seconds until a burst is allowed again."""
        return 0.0 if self._rate is None else max(0.0, (self._burst - self._left) / self._rate)


class Stream:
    """Groups that wait for room on the link."""

    def __init__(
        self,
        outbox: Outbox,
        batch: int | Literal["auto"],
        *,
        live: bool = False,
        rate: float | None = None,
        parted: bool = False,
    ) -> None:
        """live: the live stream of the outbox, and not the older one; rate: readings a second at most.

        parted: a reading is several messages, so that ``batch`` means nothing.
        """
        self.groups: deque[Group] = deque()
        self.flying = 0
        """Messages of the backlog that are not acknowledged, under ``live_first``."""
        self.allowance = Allowance(rate)
        self._outbox = outbox
        self._batch = 1 if parted else batch
        self._live = live
        backlog = outbox.live_first and not live
        self._kind: type[Group]
        if parted:
            self._kind = BacklogParted if backlog else Parted
        else:
            self._kind = BacklogGroup if backlog else Group

    def fill(self, room: int, until_ns: int | None, now: float) -> int:
        """Take from the outbox what ``room`` messages can hold, and put each device's readings together. How many.

        until_ns: as ``Outbox.take``; now: in seconds.
        """
        outbox = self._outbox
        if self._batch == "auto":
            # One by one while the link keeps up. What one look at a port has brought leaves in one system call either
            # way, and as one message it is through the broker sooner: 105,000 readings a second instead of 52,000.
            size = _AUTO if (outbox.live if self._live else outbox.waiting) > _FEW else 1
        else:
            size = self._batch
        limit = self.allowance.most(min(room * size, TURN), now)
        readings = outbox.take(limit, live=self._live, until_ns=until_ns)
        self.allowance.used(len(readings))
        if len(readings) == 1:  # most of the time
            self.groups.append(self._kind(readings))
            return 1
        if size == 1:
            self.groups.extend(self._kind((reading,)) for reading in readings)
            return len(readings)
        open_groups: dict[str, Group] = {}
        for reading in readings:
            group = open_groups.get(reading.device)
            if group is None or len(group) >= size:
                group = open_groups[reading.device] = self._kind()
                self.groups.append(group)
            group.append(reading)
        return len(readings)

    def halve(self, group: Group) -> None:
        """Too large for one message: in two, in its place."""
        half = len(group) // 2
        self.groups.extendleft((self._kind(group[half:]), self._kind(group[:half])))

    def clear(self) -> None:
        """The link is lost: the outbox gives all of it again."""
        self.groups.clear()
        self.flying = 0
