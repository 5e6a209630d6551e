"""What a window of time makes of the values in it: mean, least, most, last, count. Pure.

A window ends at the next whole multiple of its length in UTC, by the clocks as they are when its first sample comes, so
that the minutes of all boards are the same. The end is kept in monotonic time: a step of the clock neither cuts a
window short nor stretches it, and the next one is aligned anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Final

from agent.model import Fault, Sample, Value
from agent.rules_settings import Aggregate

CHANNELS: Final = 1024
"""Most channels of one window; values of more are faults. Only noise makes so many."""


class _Values:
    """The values of one channel in a window: a handful of numbers, however many they are."""

    __slots__ = ("count", "last", "least", "most", "numbers", "total")

    def __init__(self) -> None:
        self.count = 0
        self.last: Value = None
        self.numbers = 0
        self.total: int | float = 0
        self.least: int | float = math.inf
        self.most: int | float = -math.inf

    def add(self, value: Value) -> None:
        if value is None:  # the device had no value then
            return
        self.count += 1
        self.last = value
        if isinstance(value, str):
            return
        self.numbers += 1
        self.total += value
        if value < self.least:
            self.least = value
        if value > self.most:
            self.most = value

    def result(self, how: Aggregate) -> Value:
        """As TOML names it. Of texts there is no mean, least or most: the last value stands for them."""
        if how == "count":
            return self.count
        if how == "last" or not self.numbers:
            return self.last
        if how == "min":
            return self.least
        if how == "max":
            return self.most
        # 15 digits are what a double holds for sure: the mean of 0.1, 0.1 and 0.1 is 0.1.
        return float(f"{self.total / self.numbers:.15g}")


class Window:
    """One window after another, each opened by the first sample in it: where nothing comes, there is none."""

    def __init__(self, length_ns: int, outputs: Callable[[str], Iterable[tuple[str, Aggregate]]]) -> None:
        """outputs: what becomes of a channel, as (name, aggregate)."""
        self._length_ns = length_ns
        self._outputs = outputs
        self._values: dict[str, _Values] = {}
        self.end_ns: int | None = None
        """Where the present one ends, exclusive; None: none is open."""

    def add(self, fields: dict[str, Value], mono_ns: int, offset_ns: int, out: list[Sample | Fault]) -> bool:
        """Put in what can be put in, and a Fault into out for what cannot. Whether there was anything."""
        good = False
        for name, value in fields.items():
            if isinstance(value, float) and not math.isfinite(value):
                out.append(Fault("number", f"{name} is {value}, which has no JSON form"))
                continue
            values = self._values.get(name)
            if values is None:
                if len(self._values) >= CHANNELS:
                    out.append(Fault("syntax", f"more than {CHANNELS} channels in one window"))
                    break
                values = self._values[name] = _Values()
            values.add(value)
            good = True
        if good and self.end_ns is None:
            self.end_ns = mono_ns + self._length_ns - (mono_ns + offset_ns) % self._length_ns
        return good

    def close(self, out: list[Sample | Fault]) -> tuple[dict[str, Value], dict[str, tuple[str, Aggregate]]]:
        """End it: its channels, and what each is made of. Two of one name are a Fault, and the first counts."""
        fields: dict[str, Value] = {}
        sources: dict[str, tuple[str, Aggregate]] = {}
        for channel, values in self._values.items():
            for name, how in self._outputs(channel):
                if name in fields:
                    out.append(Fault("topic", f"two channels of the window are {name}"))
                else:
                    fields[name] = values.result(how)
                    sources[name] = (channel, how)
        self._values.clear()
        self.end_ns = None
        return fields, sources
