"""The rules of one device: which of its samples are published, when, and what a window makes of them. Pure.

In this order: limits (a value outside is left out, with a Fault), computed channels, the window, which makes one sample
of many, deadband and on_change, min_interval and max_interval. Time is handed in, in nanoseconds of CLOCK_MONOTONIC.
Every sample that does not come out is counted, in ``Counts``.

A deadband compares with the value that went out last, never with the one before: a slow drift is seen (as in OPC UA
part 4, DataChangeFilter). What max_interval sends is the newest sample that was held back, with the time at which it
was taken; a device that says nothing makes no reading.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from agent.model import Channel, Fault, Sample, Value
from agent.rules_settings import Aggregate, RuleSettings
from agent.rules_window import Window

if TYPE_CHECKING:
    from agent.rules_compute import Expression

GROUPS: Final = 64
"""Most sets of channels by which readings are told apart. Past it all are forgotten: only noise makes more."""
NAMES: Final = 1024
"""Most channels whose last value is kept; past it all are forgotten, and count as new."""

_SECOND: Final = 1_000_000_000
_NUMBERS: Final = frozenset({int, float})
_MISSING: Final = object()

Item: TypeAlias = "Sample | Fault"
_Limits: TypeAlias = "tuple[float, float, str]"  # low, high, and the unit with a blank before it


@dataclass(slots=True)
class Counts:
    """What became of samples: taken + made == passed + suppressed + merged + refused + held back at the moment."""

    taken: int = 0
    """Given by the driver."""
    made: int = 0
    """By windows."""
    passed: int = 0
    """Published."""
    suppressed: int = 0
    """Held back for good: nothing new, or too soon and overtaken by the next."""
    merged: int = 0
    """Gone into a window."""
    refused: int = 0
    """No value was left, or none is a number that JSON has; a Fault says why."""


class _Group:
    """The samples with one set of channels: they share a rate."""

    __slots__ = ("due_ns", "held", "sent_ns")

    def __init__(self) -> None:
        self.sent_ns: int | None = None
        self.held: Sample | None = None
        self.due_ns = 0  # when held goes out


@dataclass(frozen=True, slots=True)
class _Computed:
    name: str
    expression: Expression


class Rules:
    """What becomes of one device's samples. The caller calls ``expire`` at ``due_ns``, and ``flush`` at the end."""

    def __init__(self, settings: RuleSettings) -> None:
        self.counts = Counts()
        self._settings = settings
        self._selective = settings.selective
        self._bands: dict[str, tuple[float, float] | None] = {}
        self._min_ns = _ns(settings.min_interval) or 0
        self._max_ns = _ns(settings.max_interval)
        window_ns = _ns(settings.window)
        self._window = Window(window_ns, settings.outputs) if window_ns else None
        self._sources: dict[str, tuple[str, Aggregate]] = {}  # of a window's channels: what they are made of
        self._computed = _computed(settings)
        self._last: dict[str, Value] = {}
        self._groups: dict[tuple[str, ...], _Group] = {}
        self._limits: dict[str, _Limits] = {}
        self.declare(())

    def declare(self, channels: Sequence[Channel]) -> None:
        """What the driver says of its channels: their limits (``check_range``) and units."""
        known = {channel.name: channel for channel in channels}
        self._limits = {}
        for channel in channels if self._settings.check_range else ():
            if (channel.low, channel.high) != (None, None):
                self._limits[channel.name] = _limits(channel.low, channel.high, channel.unit)
        for name, own in self._settings.channels.items():
            if own.compute is None and (own.low, own.high) != (None, None):
                unit = known[name].unit if name in known else ""
                self._limits[name] = _limits(own.low, own.high, unit)

    # -- from outside -------------------------------------------------------------------------------------------------

    @property
    def windowed(self) -> bool:
        """``take`` needs the offset of the wall clock."""
        return self._window is not None

    @property
    def held(self) -> int:
        """Samples that are held back now, and may yet go out."""
        return sum(group.held is not None for group in self._groups.values())

    @property
    def due_ns(self) -> int | None:
        """When ``expire`` has something to do; None: not before the next sample."""
        due = [group.due_ns for group in self._groups.values() if group.held is not None]
        if self._window is not None and self._window.end_ns is not None:
            due.append(self._window.end_ns)
        return min(due, default=None)

    def report(self) -> dict[str, int]:
        """Its part of the status report."""
        return {**asdict(self.counts), "held": self.held}

    def take(self, sample: Sample, mono_ns: int, offset_ns: int = 0) -> list[Item]:
        """What goes out now that this sample has come, with its faults.

        mono_ns: when it was taken; offset_ns: wall minus monotonic time.
        """
        self.counts.taken += 1
        out: list[Item] = []
        fields = self._complete(self._within_limits(sample.fields, out), out)
        if not fields:
            self.counts.refused += 1
        elif self._window is not None:
            if self._window.end_ns is not None and mono_ns >= self._window.end_ns:
                self._close_window(self._window.end_ns, out)
            if self._window.add(fields, mono_ns, offset_ns, out):
                self.counts.merged += 1
            else:
                self.counts.refused += 1
        else:
            self._offer(fields, mono_ns, mono_ns, out)
        return out

    def expire(self, now_ns: int) -> list[Item]:
        """What goes out because its time has come."""
        out: list[Item] = []
        if self._window is not None and self._window.end_ns is not None and now_ns >= self._window.end_ns:
            self._close_window(self._window.end_ns, out)
        for group in self._overdue(now_ns):
            self._release(group, now_ns, out)
        return out

    def flush(self, now_ns: int) -> list[Item]:
        """The end: what a window holds so far, and what min_interval has held back, for it is news.

        What max_interval would have repeated is not: the broker has a value within the deadband.
        """
        out: list[Item] = []
        if self._window is not None and self._window.end_ns is not None:
            # A microsecond on, for now may be the very end of the window before, whose reading has that time.
            self._close_window(min(now_ns + 1000, self._window.end_ns), out)
        for group in sorted(self._groups.values(), key=_taken_ns):
            if group.held is not None and self._news(group.held.fields):
                self._release(group, now_ns, out)
            elif group.held is not None:
                group.held = None
                self.counts.suppressed += 1
        return out

    # -- values -------------------------------------------------------------------------------------------------------

    def _within_limits(self, fields: dict[str, Value], out: list[Item]) -> dict[str, Value]:
        bad: set[str] = set()
        for name, limits in self._limits.items():
            if name in fields and (fault := _outside(name, fields[name], limits)) is not None:
                bad.add(name)
                out.append(fault)
        return {name: value for name, value in fields.items() if name not in bad} if bad else fields

    def _complete(self, fields: dict[str, Value], out: list[Item]) -> dict[str, Value]:
        """With the computed channels, as far as what they need is there."""
        if not self._computed or not fields:
            return fields
        from agent.rules_compute import ComputeError, identifier  # there are expressions: it is loaded

        known: dict[str, Value] = {}
        for name, value in fields.items():
            known.setdefault(name if name.isidentifier() else identifier(name), value)
        fields = dict(fields)
        for computed in self._computed:
            needed = computed.expression.names
            if not needed <= known.keys():
                continue
            try:
                value = computed.expression.value({name: known[name] for name in needed})
            except ComputeError as error:
                out.append(Fault("compute", f"{computed.name}: {error}"))
                continue
            own = self._settings.channels[computed.name]
            fault = _outside(computed.name, value, _limits(own.low, own.high, own.unit))
            if fault is not None:
                out.append(fault)
                continue
            fields[computed.name] = known[identifier(computed.name)] = value
        return fields

    def _close_window(self, end_ns: int, out: list[Item]) -> None:
        assert self._window is not None
        fields, self._sources = self._window.close(out)
        if fields:
            self.counts.made += 1
            self._offer(fields, end_ns, end_ns, out)

    # -- news, and how often ------------------------------------------------------------------------------------------

    def _offer(self, fields: dict[str, Value], taken_ns: int, now_ns: int, out: list[Item]) -> None:
        """Send it, hold it, or let it be."""
        names = tuple(fields)
        group = self._groups.get(names)
        if group is None:
            if len(self._groups) >= GROUPS:
                for old in self._groups.values():
                    self._release(old, now_ns, out)
                self._groups.clear()
            group = self._groups[names] = _Group()
        if group.held is not None:  # overtaken
            group.held = None
            self.counts.suppressed += 1
        news = self._news(fields)
        wait = self._min_ns if news else self._max_ns
        sent = group.sent_ns
        if sent is None and not news:  # its channels went out with others
            sent = group.sent_ns = now_ns
        if wait is None:
            self.counts.suppressed += 1
        elif sent is None or now_ns - sent >= wait:
            self._send(group, Sample(fields, taken_ns), now_ns, out)
        else:
            group.held = Sample(fields, taken_ns)
            group.due_ns = sent + wait

    def _news(self, fields: dict[str, Value]) -> bool:
        if not self._selective:
            return True
        last, bands = self._last, self._bands
        for name, value in fields.items():
            before = last.get(name, _MISSING)
            if before is _MISSING:
                return True
            if name not in bands:
                bands[name] = self._band(name)
            band = bands[name]
            if band is None:
                continue
            if value.__class__ in _NUMBERS and before.__class__ in _NUMBERS:
                if _differ(value, before, *band):
                    return True
            elif value != before or value.__class__ is not before.__class__:
                return True
        return False

    def _band(self, name: str) -> tuple[float, float] | None:
        channel, how = self._sources.get(name, (name, "last"))
        return None if how == "count" else self._settings.band(channel)

    def _overdue(self, now_ns: int) -> list[_Group]:
        due = [group for group in self._groups.values() if group.held is not None and group.due_ns <= now_ns]
        return sorted(due, key=_taken_ns)

    def _release(self, group: _Group, now_ns: int, out: list[Item]) -> None:
        sample, group.held = group.held, None
        if sample is not None:
            self._send(group, sample, now_ns, out)

    def _send(self, group: _Group, sample: Sample, now_ns: int, out: list[Item]) -> None:
        group.sent_ns = now_ns
        if self._selective:
            if len(self._last) + len(sample.fields) > NAMES:
                self._last.clear()
                self._bands.clear()
            self._last.update(sample.fields)
        self.counts.passed += 1
        out.append(sample)


def _ns(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * _SECOND)


def _differ(value: Any, before: Any, least: float, fraction: float) -> bool:
    # Not "more than", so that what is no number (NaN) goes on, and is refused where everybody sees it.
    return not abs(value - before) <= max(least, fraction * abs(before))


def _taken_ns(group: _Group) -> int:
    return group.held.mono_ns or 0 if group.held is not None else 0


def _limits(low: float | None, high: float | None, unit: str) -> _Limits:
    return (-math.inf if low is None else low, math.inf if high is None else high, unit and f" {unit}")


def _outside(name: str, value: Value, limits: _Limits) -> Fault | None:
    low, high, unit = limits
    if value.__class__ not in _NUMBERS or low <= value <= high:  # type: ignore[operator]
        return None
    limit = f"below {low:g}" if value < low else f"above {high:g}"  # type: ignore[operator]
    return Fault("range", f"{name}: {value:g}{unit} is {limit}{unit}")


def _computed(settings: RuleSettings) -> list[_Computed]:
    with_text = [(name, own.compute) for name, own in settings.channels.items() if own.compute is not None]
    if not with_text:
        return []
    from agent.rules_compute import Expression  # an extra, which only these need

    return [_Computed(name, Expression(text)) for name, text in with_text]
