"""What a connection has sent and the broker has not acknowledged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agent.events import EventManager, TimerEvent


class InFlight:
    """Messages by their id, oldest first, and one timer for all of them: nothing to pay for each.

    look: called to read what may have come, before it is judged; overdue: called with the oldest one's topic when its
    acknowledgement has not come for ``timeout`` seconds.
    """

    def __init__(
        self, manager: EventManager, timeout: float, look: Callable[[], object], overdue: Callable[[str], object]
    ) -> None:
        self._manager = manager
        self._look = look
        self._timeout = timeout
        self._overdue = overdue
        self._messages: dict[int, tuple[Any, str, float]] = {}
        self._timer: TimerEvent | None = None
        self._armed = False

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, mid: int, token: Any, topic: str) -> None:
        self._messages[mid] = (token, topic, self._manager.now())
        if not self._armed:
            self._arm(self._timeout)

    def pop(self, mid: int) -> tuple[Any, str] | None:
        """Token and topic of the message, which is in flight no more; None if it was not."""
        entry = self._messages.pop(mid, None)
        return None if entry is None else entry[:2]

    def cancel(self) -> None:
        """The connection has ended: forget all."""
        self._messages.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self, after: float) -> None:
        self._armed = True
        if self._timer is None:
            self._timer = self._manager.create_timer_event(after, self._due, repeat=False, name="mqtt.ack_timeout")
        else:
            self._timer.reschedule(after)

    def _due(self) -> None:
        self._armed = False
        self._look()
        if not self._messages or self._armed:
            return
        _, topic, sent = next(iter(self._messages.values()))
        left = sent + self._timeout - self._manager.now()
        if left > 0:
            self._arm(left)
        else:
            self._overdue(topic)
