"""A driver's context where its device has rules (``[device.rules]``): they stand between the driver and the numbering.

A device without rules has the plain context: nothing of this is on the way of its readings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from agent.clock import Clock
from agent.context import MICROSECOND, DeviceContext
from agent.driver import DeviceConfig, Driver, Fault, Sample
from agent.events import EventManager, TimerEvent
from agent.rules import Rules
from agent.rules_settings import RuleSettings

Through = Callable[[Iterable[Sample | Fault]], object]


class RuleGate:
    """The rules of one device, with their timer. They outlive its openings: a window goes on over a loss."""

    def __init__(self, device: str, settings: RuleSettings, manager: EventManager, clock: Clock) -> None:
        self.rules = Rules(settings)
        self._device = device
        self._manager = manager
        self._clock = clock
        self._through: Through | None = None
        self._last_ns = -MICROSECOND
        self._timer: TimerEvent | None = None
        self._fires_ns = 0

    def take(self, items: Iterable[Sample | Fault], mono_ns: int, through: Through) -> None:
        """Hand on what the rules let out. Each sample keeps a time of its own, a microsecond apart at least."""
        self._through = through
        rules = self.rules
        offset_ns = self._clock.offset_ns if rules.windowed else 0
        out: list[Sample | Fault] = []
        for item in items:
            if not isinstance(item, Sample):
                out.append(item)
                continue
            stamp = item.mono_ns
            if stamp is None:
                stamp = self._last_ns = max(mono_ns, self._last_ns + MICROSECOND)
            out += rules.take(item, stamp, offset_ns)
        if out:
            through(out)
        self._arm()

    def declare(self, driver: Driver) -> None:
        """It is made and opened: the limits of its channels may count."""
        self.rules.declare(tuple(driver.channels))

    def flush(self) -> None:
        """The end: hand on what is held back and worth it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._through is not None and (out := self.rules.flush(self._clock.mono_ns())):
            self._through(out)

    def _arm(self) -> None:
        """A timer for what is held back. One that fires too early costs less than moving it with every reading."""
        due_ns = self.rules.due_ns
        if due_ns is None or (self._timer is not None and self._fires_ns <= due_ns):
            return
        if self._timer is not None:
            self._timer.cancel()
        # A microsecond later, for seconds in a float are not exact, and too early would be once more in vain.
        delay = max(0, due_ns - self._clock.mono_ns()) / 1e9 + 1e-6
        self._timer = self._manager.create_timer_event(delay, self._expire, repeat=False, name=f"{self._device}.rules")
        self._fires_ns = due_ns

    def _expire(self) -> None:
        self._timer = None
        out = self.rules.expire(self._clock.mono_ns())
        if out and self._through is not None:
            self._through(out)
        self._arm()


def rule_gate(config: DeviceConfig, manager: EventManager, clock: Clock) -> RuleGate | None:
    """The rules of a device, or None where it has none."""
    rules = config.rules
    return RuleGate(config.name, rules, manager, clock) if rules is not None and rules.active else None


class RuledContext(DeviceContext):
    """A context whose samples go through the rules before they are numbered."""

    def __init__(self, *args: Any, gate: RuleGate, **options: Any) -> None:
        super().__init__(*args, **options)
        self._gate = gate

    def _take(self, items: Iterable[Sample | Fault], mono_ns: int) -> None:
        self._gate.take(items, mono_ns, self._hand_on)

    def _hand_on(self, items: Iterable[Sample | Fault]) -> None:
        super()._take(items, self.clock.mono_ns())
