"""What was asked lately and what was answered, and how much may be asked. Pure: the time is handed in, in seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

REMEMBERED = 64
"""Transactions that are remembered, those under way included."""
LASTS = 60.0
"""Seconds for which an answer is given again: longer than a question is repeated, shorter than a name is used again."""
ASKERS = 8
"""Who wait for one answer; more get none, and may ask again."""

Key: TypeAlias = tuple[str, str]
"""Operation, and the transaction as JSON has it: "1" and 1 are two."""


class Asker(NamedTuple):
    """Where an answer goes, and the MQTT 5 properties that it carries."""

    topic: str
    properties: bytes


@dataclass(slots=True, eq=False)
class Asked:
    """One request; ``payload`` and ``at`` once it is answered."""

    arguments: dict[str, Any]
    askers: dict[Asker, None] = field(default_factory=dict)
    payload: bytes | None = None
    at: float = 0.0


class Memory:
    """The latest requests by their transactions, oldest first."""

    def __init__(self) -> None:
        self._asked: dict[Key, Asked] = {}

    def __len__(self) -> int:
        return len(self._asked)

    def find(self, key: Key, now: float) -> Asked | None:
        """The same transaction, under way or answered lately."""
        asked = self._asked.get(key)
        if asked is not None and asked.payload is not None and now - asked.at > LASTS:
            del self._asked[key]
            return None
        return asked

    def add(self, key: Key, asked: Asked) -> None:
        """Remember it; of too many the oldest that is answered is forgotten. What is under way the caller bounds."""
        if len(self._asked) >= REMEMBERED:
            done = next((old for old, other in self._asked.items() if other.payload is not None), None)
            if done is not None:
                del self._asked[done]
        self._asked[key] = asked


class Bucket:
    """So many a second, and ``burst`` of them at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = self._left = burst
        self._at: float | None = None

    def take(self, now: float) -> bool:
        """Whether one more is allowed now."""
        if self._at is not None:
            self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
