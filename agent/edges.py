"""Edges of GPIO lines as the kernel tells them, and pulses counted from them. Pure: bytes and times come in.

Source: struct gpio_v2_line_event of include/uapi/linux/gpio.h (Linux 5.10, a stable interface), as read(2) gives it: 48
bytes in the machine's byte order: timestamp_ns (u64, CLOCK_MONOTONIC), id (1 rising, 2 falling: of the logical level,
active_low is taken into account), offset of the line, seqno of the request, line_seqno (each u32), 24 bytes of padding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from agent.model import Fault

EVENT: Final = struct.Struct("=QIIII24x")
RISING: Final = 1
FALLING: Final = 2
_U32: Final = 1 << 32


@dataclass(frozen=True, slots=True)
class Edge:
    """One edge. name: of the line's channel; rising: it became active; mono_ns: when, by the kernel's CLOCK_MONOTONIC;
    missed: edges of this line just before it that the kernel's buffer dropped (it drops the oldest)."""

    name: str
    rising: bool
    mono_ns: int
    missed: int


class EdgeFramer:
    """Bytes of one line request to edges, from its first event on: each line's numbers begin at 1."""

    def __init__(self, names: dict[int, str]) -> None:
        """names: the channel of each line, by the line's offset."""
        self._names = names
        self._last = dict.fromkeys(names, 0)
        self._rest = b""

    def feed(self, data: bytes) -> list[Edge | Fault]:
        """The edges that data completes; a Fault for what the kernel cannot have said."""
        data = self._rest + data
        whole = len(data) - len(data) % EVENT.size
        self._rest = data[whole:]
        found: list[Edge | Fault] = []
        for start in range(0, whole, EVENT.size):
            mono_ns, kind, offset, _, number = EVENT.unpack_from(data, start)
            name = self._names.get(offset)
            if name is None or kind not in (RISING, FALLING):
                found.append(Fault("event", f"event {kind} of line {offset}", data[start : start + EVENT.size]))
                continue
            missed = (number - self._last[offset] - 1) % _U32
            self._last[offset] = number
            found.append(Edge(name, kind == RISING, mono_ns, missed))
        return found

    def end(self) -> Iterable[Fault]:
        """A part of an event is a Fault("cut"): the kernel gives whole ones."""
        rest, self._rest = self._rest, b""
        return [Fault("cut", "the stream ended within an event", rest)] if rest else []


class PulseMeter:
    """Counts pulses, and tells how fast they come.

    The kernel numbers what it counts, so pulses whose event it had to drop are in ``pulses`` all the same; ``lost``
    says how many these were: what is not known of them is when they came.
    """

    def __init__(self, pulses: int = 0, lost: int = 0) -> None:
        self.pulses = pulses
        self.lost = lost
        self._since_ns: int | None = None  # the pulse from which on the next rate is measured
        self._since = 0
        self._last_ns = 0
        self._rate = 0.0

    def add(self, mono_ns: int, missed: int) -> None:
        """One pulse, and ``missed`` before it."""
        self.pulses += 1 + missed
        self.lost += missed
        self._last_ns = mono_ns
        if self._since_ns is None:
            self._since_ns, self._since = mono_ns, self.pulses

    def rate(self, mono_ns: int, idle_ns: int) -> float:
        """Pulses a second, from pulse to pulse since it was asked last; call it once a report.

        Where none has come it is at most one in the time since the last one, and after ``idle_ns`` zero.
        """
        if self._since_ns is None:
            return 0.0
        quiet = mono_ns - self._last_ns
        if quiet >= idle_ns:
            self._since_ns = None
            self._rate = 0.0
        elif self.pulses > self._since and self._last_ns > self._since_ns:
            self._rate = (self.pulses - self._since) * 1e9 / (self._last_ns - self._since_ns)
            self._since_ns, self._since = self._last_ns, self.pulses
        if quiet > 0:
            self._rate = min(self._rate, 1e9 / quiet)
        return self._rate

    @classmethod
    def saved(cls, state: object) -> PulseMeter:
        """One that goes on from ``state``; from nothing where somebody has written something else."""
        match state:
            case [int(pulses), int(lost)]:
                return cls(pulses, lost)
            case _:
                return cls()

    def state(self) -> list[int]:
        """What to save of it."""
        return [self.pulses, self.lost]
