"""One timer for whatever is due next. Nothing is due: no timer, and nothing to be woken for."""

from __future__ import annotations

from collections.abc import Callable

from agent.events import EventManager, TimerEvent

NEVER = float("inf")

EARLY = 0.05
"""Seconds by which a timer may ring too early: moved for each reading it would cost more than it saves, and never moved
a board with ten slow devices would be woken seven times a second for nothing."""


class Alarm:
    """Calls ``fn`` once at the time it is set to, or before: who is called looks what is due, and sets it again."""

    def __init__(self, manager: EventManager, fn: Callable[[], object], name: str) -> None:
        self.at = NEVER
        """In seconds of the manager's clock."""
        self._manager = manager
        self._fn = fn
        self._name = name
        self._timer: TimerEvent | None = None

    def set(self, due: float) -> None:
        """Ring at ``due``; NEVER: not at all."""
        now = self._manager.now()
        if self.at <= due <= self.at + EARLY and self.at > now:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.at = due
        if due < NEVER:
            self._timer = self._manager.create_timer_event(
                max(due - now, 1e-4), self._ring, repeat=False, name=self._name
            )

    def _ring(self) -> None:
        self._timer, self.at = None, NEVER
        self._fn()
