"""Which of many equal log lines is worth printing: the 1st, 2nd, 4th, 8th ..., and a sum when it is over."""

from __future__ import annotations

from collections.abc import Hashable


class Repeats:
    """Counts occurrences by key. At most ``limit`` keys are kept; the oldest is forgotten."""

    def __init__(self, limit: int = 256) -> None:
        self._counts: dict[Hashable, int] = {}
        self._limit = limit

    def __call__(self, key: Hashable) -> int:
        """Count one more. Returns how often it was seen where this one is worth a line (a power of two), else 0."""
        count = self._counts.get(key, 0) + 1
        if count == 1 and len(self._counts) >= self._limit:
            del self._counts[next(iter(self._counts))]
        self._counts[key] = count
        return 0 if count & (count - 1) else count

    def over(self, key: Hashable) -> int:
        """It is over: how often it was seen in all. The next occurrence is a first one again."""
        return self._counts.pop(key, 0)
