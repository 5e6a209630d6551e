"""What a driver was told and has not answered yet: each is answered once, in time, whatever the driver does."""

from __future__ import annotations

from collections.abc import Callable

from agent.driver import Done
from agent.events import EventManager, TimerEvent

ANSWER_TIMEOUT = 10.0
"""Seconds for a driver to answer: a Modbus write behind a full round of dead units, with all its retries."""
MOST_PENDING = 32
"""Of one device at a time: more are sent faster than it takes them."""


class Pending:
    """What of one device waits for its driver's answer. what: a word for the timers; late: what may happen yet."""

    def __init__(
        self, manager: EventManager, device: str, *, what: str = "set", late: str = "it may be set all the same"
    ) -> None:
        self._manager = manager
        self._device = device
        self._what = what
        self._but = late
        self._waiting: dict[Done, TimerEvent] = {}

    def begin(self, done: Done, within: float = ANSWER_TIMEOUT) -> Done | None:
        """What the driver calls instead of done: the first call counts. None: too many wait already.

        within: seconds until done is told that it is too late.
        """
        if len(self._waiting) >= MOST_PENDING:
            return None

        def answered(problem: str | None = None) -> None:
            timer = self._waiting.pop(answered, None)
            if timer is not None:
                timer.cancel()
                done(problem)

        self._waiting[answered] = self._manager.create_timer_event(
            within, self._late(answered, within), repeat=False, name=f"{self._device}.{self._what}"
        )
        return answered

    def end(self, problem: str) -> None:
        """The device is gone: nobody will answer these any more."""
        for answered in list(self._waiting):
            answered(problem)

    def _late(self, answered: Done, within: float) -> Callable[[], object]:
        return lambda: answered(f"{self._device} has not answered within {within:g} s; {self._but}")
