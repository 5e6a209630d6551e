"""The judge: what a device said and the agent read of it, against what a subscriber of the broker got. Pure.

All times are seconds of CLOCK_MONOTONIC, but for those called wall. The agent's own word counts for nothing: that it
read a line is seen at its read(2), that it died is our own kill, that a reading arrived is seen by a subscriber.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any


@dataclass(frozen=True, slots=True)
class Line:
    """A numbered line. read: when its last byte was read, None if it never was."""

    number: int
    written: float
    read: float | None


@dataclass(frozen=True, slots=True)
class Arrival:
    """A reading that came to the subscriber; wall: its ``ts``, seconds since 1970."""

    number: int
    seq: int
    at: float
    wall: float
    fields: Mapping[str, Any] = field(default_factory=dict)
    resumed: bool = False
    backfill: bool = False
    unsynced: bool = False


@dataclass(frozen=True, slots=True)
class Break:
    """Something that was done to the agent: begun, and done. Between the two it may still have worked."""

    begun: float
    done: float


@dataclass(frozen=True, slots=True)
class Breaks:
    """What was done to it, in order. kills: kill -9 and power cuts; cuts: ends of its link, which excuse no loss."""

    kills: Sequence[Break] = ()
    cuts: Sequence[Break] = ()

    def kill_after(self, moment: float) -> Break | None:
        """The first kill that was not done by then."""
        return _after(self.kills, moment)

    def any_after(self, moment: float) -> Break | None:
        """The first break of any kind that was not done by then."""
        found = [each for each in (_after(self.kills, moment), _after(self.cuts, moment)) if each is not None]
        return min(found, key=lambda each: each.begun, default=None)


def _after(breaks: Sequence[Break], moment: float) -> Break | None:
    place = bisect_left(breaks, moment, key=lambda each: each.done)
    return breaks[place] if place < len(breaks) else None


ON_THE_WAY = 1.0
"""Seconds that a message may take from the agent to the judge: it may arrive when its sender is dead already."""


@dataclass(slots=True)
class Verdict:
    """Counts of lines and readings; all but the first three and ``young`` shall be 0."""

    read: int = 0
    unread: int = 0
    """Written, but not read by anybody: the kernel still had it when the reader was killed or the port unplugged."""
    arrived: int = 0
    young: int = 0
    """Read, lost, and read no longer before a kill than the bound allows."""
    lost: int = 0
    """Read and lost beyond that."""
    disordered: int = 0
    duplicates: int = 0
    unprovoked: int = 0
    """Of the duplicates, those between whose arrivals nothing was broken."""
    reused: int = 0
    """A seq that two readings have, or a reading that has two."""
    gaps: int = 0
    """Gaps in seq whose end is not marked as resumed: a subscriber would take them for a loss."""
    strange: int = 0
    """Readings that no line explains."""
    oldest_loss: float = 0.0
    """Seconds before the kill at which the oldest lost line was read."""
    oldest_duplicate: float = 0.0
    """Seconds before the break at which the oldest reading that came again had come for the first time."""
    worst_ts: float = 0.0
    """Seconds by which a reading's time is off the reading of its line."""

    def __add__(self, other: Verdict) -> Verdict:
        total = Verdict()
        for name in Verdict.__slots__:
            mine, others = getattr(self, name), getattr(other, name)
            setattr(total, name, mine + others if isinstance(mine, int) else max(mine, others))
        return total


def judge(
    lines: Sequence[Line],
    arrivals: Sequence[Arrival],
    breaks: Breaks = Breaks(),
    *,
    bound: float = 0.0,
    wall_offset: float | None = None,
    fields: Any = None,
) -> Verdict:
    """Judge one device. Lines in order of their numbers, arrivals in order of their coming.

    bound: seconds before a kill within which a line that was read may be lost; wall_offset: true wall time minus
    CLOCK_MONOTONIC, None to leave the times unjudged; fields: a function from number to what the reading must hold.
    """
    verdict = Verdict()
    known = {line.number: line for line in lines}
    first: dict[int, Arrival] = {}
    by_seq: dict[int, int] = {}
    last = last_backfill = -1
    for arrival in arrivals:
        number = arrival.number
        line = known.get(number)
        if line is None or line.read is None or (fields is not None and fields(number) != arrival.fields):
            verdict.strange += 1
            continue
        verdict.reused += by_seq.setdefault(arrival.seq, number) != number
        if (before := first.get(number)) is not None:
            verdict.duplicates += 1
            verdict.reused += before.seq != arrival.seq
            cause = breaks.any_after(max(line.read, before.at - ON_THE_WAY))
            if cause is None or cause.begun > arrival.at:
                verdict.unprovoked += 1
            else:
                verdict.oldest_duplicate = max(verdict.oldest_duplicate, cause.begun - before.at)
            continue
        first[number] = arrival
        if arrival.backfill:  # a stream of its own under live_first
            verdict.disordered += number < last_backfill
            last_backfill = max(last_backfill, number)
        else:
            verdict.disordered += number < last
            last = max(last, number)
        if wall_offset is not None:
            verdict.worst_ts = max(verdict.worst_ts, abs(arrival.wall - wall_offset - line.read))
    _losses(verdict, lines, first, breaks, bound)
    in_order = sorted(first.values(), key=lambda arrival: arrival.seq)
    verdict.gaps = sum(b.seq > a.seq + 1 and not b.resumed for a, b in pairwise(in_order))
    verdict.arrived = len(first)
    return verdict


def _losses(
    verdict: Verdict, lines: Sequence[Line], first: Mapping[int, Arrival], breaks: Breaks, bound: float
) -> None:
    for line in lines:
        if line.read is None:
            verdict.unread += 1
            continue
        verdict.read += 1
        if line.number in first:
            continue
        if (kill := breaks.kill_after(line.read)) is None:
            verdict.lost += 1
            continue
        age = kill.begun - line.read
        verdict.oldest_loss = max(verdict.oldest_loss, age)
        if age <= bound:
            verdict.young += 1
        else:
            verdict.lost += 1
