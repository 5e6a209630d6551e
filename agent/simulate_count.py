"""What a simulation counts: times, of which nobody keeps a million, and the sums over all agents. Pure."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

_STEPS = 16
"""Classes for each doubling: a quantile is at most 4.4 % above the true one."""
_LEAST = 1e-6  # seconds; below it nothing is told apart


class Times:
    """How long something took, in seconds: a histogram with logarithmic classes, and the longest as it was."""

    def __init__(self) -> None:
        self.count = 0
        self.longest = 0.0
        self._classes: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        self.count += 1
        self.longest = max(self.longest, seconds)
        self._classes[math.ceil(math.log2(max(seconds, _LEAST)) * _STEPS)] += 1

    def quantile(self, share: float) -> float:
        """The time that ``share`` of them did not exceed, up to 4.4 % too long; 0 if there are none."""
        left = math.ceil(share * self.count)
        for step, count in sorted(self._classes.items()):
            left -= count
            if left <= 0:
                return min(self.longest, math.exp2(step / _STEPS))
        return 0.0

    def as_json(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "p50_s": round(self.quantile(0.5), 6),
            "p99_s": round(self.quantile(0.99), 6),
            "max_s": round(self.longest, 6),
        }


@dataclass(slots=True)
class Sums:
    """All agents together at one moment. Readings are counted from the start."""

    at: float
    """Seconds of the manager's clock."""
    cpu_s: float
    """Processor time of this process, its threads included."""
    memory: int
    """Bytes that it has in RAM."""
    started: int = 0
    connected: int = 0
    made: int = 0
    sent: int = 0
    acknowledged: int = 0
    dropped: int = 0
    """Lost to the outbox's bound."""
    refused: int = 0
    """Set aside, as the broker does not take them."""
    failures: int = 0
    """Attempts and connections that have failed."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Of those whose last failure it was: agents by reason."""

    @property
    def waiting(self) -> int:
        """Not acknowledged, and not lost yet."""
        return self.made - self.acknowledged - self.dropped - self.refused


@dataclass(slots=True)
class Tally:
    """What happened to any of the agents."""

    connecting: Times = field(default_factory=Times)
    """From an agent's start to the broker's CONNACK, its failed attempts and their pauses included."""
    away: Times = field(default_factory=Times)
    """From a lost connection to the next CONNACK."""
    acknowledging: Times = field(default_factory=Times)
    """From a reading's stamp to its acknowledgement."""
