"""What readings are called: numbers that grow by one for each device and are never given twice. Pure.

A process may use only numbers that the file says are reserved, so that after a crash the next one begins behind them.
Ranges are large: one write of a few bytes then serves for thousands of readings.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping

from agent.outbox_store import Numbers

FIRST_RANGE = 1 << 16
"""Numbers in a device's first range: eleven minutes at 100 a second; a new one is asked for after half of it."""
LARGEST_RANGE = 1 << 24
"""Each further range is four times as large, up to this: two days at 100 readings a second between two writes."""

_NEVER = sys.maxsize


class Numbering:
    """The next number of each device, and which devices need a new range.

    jump: a number above all that may have been given, for when the disk does not take a new range in time.
    """

    def __init__(self, jump: Callable[[], int]) -> None:
        self._jump = jump
        self.resumed: set[str] = set()
        """Devices whose next reading is the first after an unclean end."""
        self.short: set[str] = set()
        """Devices that have used half of their range."""
        self._next: dict[str, int] = {}
        self._end: dict[str, int] = {}
        self._check: dict[str, int] = {}  # at this number something has to be done
        self._range: dict[str, int] = {}
        self._floor = 1
        self._found: dict[str, Numbers] = {}
        self._waiting: list[tuple[set[str], Callable[[], object]]] = []

    def begin(self, found: Mapping[str, Numbers], devices: Iterable[str], floor: int = 1) -> None:
        """Go on where an earlier process ended. floor: numbers below it may have been given by one that left no trace.

        Called again when a file turns up late: numbers never go back.
        """
        self._floor = floor
        self._found |= found
        for device in devices:
            known = found.get(device)
            present = self._next.get(device, 1)
            following = max(floor, present, known.following if known else 1)
            if floor > 1 or (known and known.resumed) or following > present > 1:
                self.resumed.add(device)
            self._next[device] = self._end[device] = following
            self._check[device] = _NEVER
            self.short.add(device)

    def take(self, device: str) -> int:
        """The device's next number."""
        number = self._next.get(device)
        if number is None:
            self.begin(self._found, [device], self._floor)
            number = self._next[device]
        if number >= self._check[device]:
            number = self._due(device, number)
        self._next[device] = number + 1
        return number

    def _due(self, device: str, number: int) -> int:
        """Half of the range is used: a new one is wanted. All of it: the disk does not answer, and we do not wait."""
        self.short.add(device)
        if number < self._end[device]:
            self._check[device] = self._end[device]
            return number
        self._check[device] = _NEVER
        self.resumed.add(device)
        return max(number, self._jump())

    def wanted(self) -> dict[str, int]:
        """Ends of new ranges for all that are short of numbers, to be written down and then confirmed."""
        return {device: self._next[device] + self._range.get(device, FIRST_RANGE) for device in self.short}

    def confirm(self, ends: Mapping[str, int]) -> None:
        """These ends are on disk."""
        for device, end in ends.items():
            length = self._range.get(device, FIRST_RANGE)
            self._range[device] = min(LARGEST_RANGE, length * 4)
            self._end[device] = end
            self._check[device] = end - length // 2
            self.short.discard(device)
        self._reserved(ends)

    def reserve(self, devices: Iterable[str], on_reserved: Callable[[], object], *, wait: bool) -> None:
        """Devices that come later: on_reserved is called once their numbers are on disk, which may be now.

        wait: the disk will answer; else as ``give_up``.
        """
        new = {device for device in devices if device not in self._next}
        self.begin(self._found, new, self._floor)
        self._waiting.append((new, on_reserved))
        self._reserved(())
        if not wait:
            self.give_up()

    def give_up(self) -> None:
        """The disk does not answer: who waits goes on with numbers that were never given."""
        for new, _ in self._waiting:
            self.begin({}, new, self._jump())
        self._reserved({device for new, _ in self._waiting for device in new})

    def _reserved(self, devices: Iterable[str]) -> None:
        waiting, self._waiting = self._waiting, []
        for new, on_reserved in waiting:
            new.difference_update(devices)
            if new:
                self._waiting.append((new, on_reserved))
            else:
                on_reserved()

    def exact(self) -> dict[str, int]:
        """What comes next, for a clean end."""
        return dict(self._next)
