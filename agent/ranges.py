"""A set of whole numbers that lie together in runs, kept as ranges: a million of them in a row cost one pair."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator


class Ranges:
    """Whole numbers as disjoint ranges in ascending order, both ends inclusive; neighbours are merged.

    All but a look and ``add`` at the end move the pairs behind, as in any list: whoever keeps many bounds them.
    """

    __slots__ = ("_firsts", "_lasts", "count")

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self.count = 0
        """How many numbers. An attribute and not ``len()``, which ends at sys.maxsize."""

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._firsts, self._lasts, strict=True)

    def __bool__(self) -> bool:
        return bool(self._firsts)

    @property
    def pairs(self) -> int:
        """How many ranges: what it costs to keep them."""
        return len(self._firsts)

    def find(self, number: int) -> tuple[int, int] | None:
        """The range that holds the number."""
        index = bisect_right(self._firsts, number) - 1
        if index < 0 or self._lasts[index] < number:
            return None
        return self._firsts[index], self._lasts[index]

    def __contains__(self, number: int) -> bool:
        return self.find(number) is not None

    def add(self, first: int, last: int) -> None:
        """Add first..last, of which none may be in it yet. Nothing if last is less than first."""
        if last < first:
            return
        firsts, lasts = self._firsts, self._lasts
        index = bisect_right(firsts, first)
        self.count += last - first + 1
        before = index > 0 and lasts[index - 1] == first - 1
        after = index < len(firsts) and firsts[index] == last + 1
        if before and after:
            lasts[index - 1] = lasts.pop(index)
            del firsts[index]
        elif before:
            lasts[index - 1] = last
        elif after:
            firsts[index] = first
        else:
            firsts.insert(index, first)
            lasts.insert(index, last)

    def discard(self, first: int, last: int) -> None:
        """Take out first..last, which lies within one range."""
        firsts, lasts = self._firsts, self._lasts
        index = bisect_right(firsts, first) - 1
        low, high = firsts[index], lasts[index]
        self.count -= last - first + 1
        if low == first and high == last:
            del firsts[index], lasts[index]
        elif low == first:
            firsts[index] = last + 1
        elif high == last:
            lasts[index] = first - 1
        else:
            lasts[index] = first - 1
            firsts.insert(index + 1, last + 1)
            lasts.insert(index + 1, high)

    def pop_first(self) -> tuple[int, int]:
        """Take out the lowest range. Raises IndexError if there is none."""
        low, high = self._firsts.pop(0), self._lasts.pop(0)
        self.count -= high - low + 1
        return low, high

    def take_all(self) -> list[tuple[int, int]]:
        """Take out all of them."""
        taken = list(self)
        self._firsts.clear()
        self._lasts.clear()
        self.count = 0
        return taken

    def text(self, most: int = 8) -> str:
        """``12, 40..99, 113 and 4 more ranges``: the lowest ``most`` ranges, for people."""
        parts = [
            str(first) if first == last else f"{first}..{last}"
            for first, last in zip(self._firsts[:most], self._lasts[:most], strict=True)
        ]
        more = self.pairs - len(parts)
        return ", ".join(parts) + (f" and {more} more range{'s' * (more > 1)}" if more else "")
