"""One timer for whatever is due next. Nothing is due: no timer, and nothing to be woken for."""

from __future__ import annotations

from collections.abc import Callable

from agent.events import EventManager, TimerEvent

NEVER = float("inf")

SOON = 0.1
"""Seconds: an alarm that rings later than that, and not too late, stays where it is. Moved for each reading it would
cost more than the few times that it then rings for nothing; never moved, a board with ten slow devices would be woken
seven times a second for nothing."""


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
        if now + SOON < self.at <= due < NEVER:
            return
        self.at = due
        if due == NEVER:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        elif self._timer is None:
            self._timer = self._manager.create_timer_event(
                max(due - now, 1e-4), self._ring, repeat=False, name=self._name
            )
        else:
            self._timer.reschedule(max(due - now, 1e-4))

    def _ring(self) -> None:
        self.at = NEVER
        self._fn()
