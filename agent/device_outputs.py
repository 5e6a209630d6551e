"""Settings that a driver has taken and not answered yet: each is answered once, in time, whatever the driver does."""

from __future__ import annotations

from collections.abc import Callable

from agent.driver import Done
from agent.events import EventManager, TimerEvent

ANSWER_TIMEOUT = 10.0
"""Seconds for a driver to answer: a Modbus write behind a full round of dead units, with all its retries."""
MOST_PENDING = 32
"""Of one device at a time: more are sent faster than it takes them."""


class Pending:
    """The settings of one device that wait for its driver's answer."""

    def __init__(self, manager: EventManager, device: str) -> None:
        self._manager = manager
        self._device = device
        self._waiting: dict[Done, TimerEvent] = {}

    def begin(self, done: Done) -> Done | None:
        """What the driver calls instead of done: the first call counts. None: too many wait already."""
        if len(self._waiting) >= MOST_PENDING:
            return None

        def answered(problem: str | None = None) -> None:
            timer = self._waiting.pop(answered, None)
            if timer is not None:
                timer.cancel()
                done(problem)

        self._waiting[answered] = self._manager.create_timer_event(
            ANSWER_TIMEOUT, self._late(answered), repeat=False, name=f"{self._device}.set"
        )
        return answered

    def end(self, problem: str) -> None:
        """The device is gone: nobody will answer these any more."""
        for answered in list(self._waiting):
            answered(problem)

    def _late(self, answered: Done) -> Callable[[], object]:
        return lambda: answered(
            f"{self._device} has not answered within {ANSWER_TIMEOUT:g} s; it may be set all the same"
        )
