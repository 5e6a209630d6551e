"""What pieces of work cost: declared by their weight, refined by what those of the same key really took."""

from __future__ import annotations

from collections.abc import Hashable

MOST_KEYS = 1024  # keys whose costs are remembered
MEMORY = 0.25  # weight of the newest measurement in an average: after five pieces three quarters of it is new
FIRST_GUESS = 1e-3  # seconds a unit of weight, before anything was measured; only its ratio to others matters


class Costs:
    """Seconds a unit of weight: for each key, and for all work together, which serves keys that were never seen."""

    __slots__ = ("_all", "_rates")

    def __init__(self) -> None:
        self._all = FIRST_GUESS
        self._rates: dict[Hashable, float] = {}

    def expected(self, key: Hashable, weight: float) -> float:
        """Seconds that a piece is expected to take."""
        return weight * self._rates.get(key, self._all)

    def learn(self, key: Hashable, weight: float, spent: float) -> None:
        """A piece took ``spent`` seconds."""
        if weight <= 0.0:
            return
        rate = spent / weight
        self._all += MEMORY * (rate - self._all)
        if key is None:
            return
        rates = self._rates
        known = rates.get(key)
        if known is None and len(rates) >= MOST_KEYS:
            del rates[next(iter(rates))]  # the one learnt first
        rates[key] = rate if known is None else known + MEMORY * (rate - known)
