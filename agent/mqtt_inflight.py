"""What a connection has sent and the broker has not acknowledged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from agent.events import EventManager, TimerEvent


class Sent(NamedTuple):
    """One message: whose it is, where it goes, its packet's size in bytes, when and as which it was sent."""

    token: Any
    topic: str
    size: int
    at: float
    number: int


class InFlight:
    """Messages by their id, oldest first, and one timer for all of them: nothing to pay for each.

    look: called to read what may have come, before it is judged; overdue: called with the topic of the oldest one when
    its acknowledgement has not come for ``timeout`` seconds since it was sent. A broker acknowledges in order
    (MQTT-4.6.0-2): while those before it still were, on a slow link, it was none's fault, and the time counts from the
    last of them.
    """

    def __init__(
        self, manager: EventManager, timeout: float, look: Callable[[], object], overdue: Callable[[str], object]
    ) -> None:
        self._manager = manager
        self._look = look
        self._timeout = timeout
        self._overdue = overdue
        self._messages: dict[int, Sent] = {}
        self._count = 0
        self._acked = 0  # number of the message that was acknowledged last ...
        self._heard = 0.0  # ... and when
        self._timer: TimerEvent | None = None
        self._armed = False

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, mid: int, token: Any, topic: str, size: int) -> None:
        self._count += 1
        self._messages[mid] = Sent(token, topic, size, self._manager.now(), self._count)
        if not self._armed:
            self._arm(self._timeout)

    def pop(self, mid: int) -> Sent | None:
        """The message, which is in flight no more; None if it was not."""
        sent = self._messages.pop(mid, None)
        if sent is not None:
            self._acked, self._heard = sent.number, self._manager.now()
        return sent

    def cancel(self) -> list[Sent]:
        """The connection has ended: forget all, and tell what it was."""
        left = list(self._messages.values())
        self._messages.clear()
        if self._timer is not None:
            self._timer.cancel()
        return left

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
        oldest = next(iter(self._messages.values()))
        since = self._heard if oldest.at < self._heard and self._acked < oldest.number else oldest.at
        left = since + self._timeout - self._manager.now()
        if left > 0:
            self._arm(left)
        else:
            self._overdue(oldest.topic)
