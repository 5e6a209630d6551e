"""How large a packet a broker takes that does not say so. Pure: sizes and the time are handed in.

An MQTT 5 broker names its Maximum Packet Size; one of 3.1.1 can only close the connection, and as the outbox sends the
message again, would do so for ever (docs/decisions/034).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from agent.errors import LinkError

if TYPE_CHECKING:
    from agent.mqtt_inflight import Sent
    from agent.mqtt_settings import BrokerUrl

_SUSPECTED = 3  # connections in a row that end over a message larger than all taken, before such ones are sent alone
_CONVICTED = 3  # connections that then end with it alone in flight: the bound, not chance, is the reason
_FLOOR = 512  # bytes that any broker takes: what is no larger is never suspected, whatever a broken one does
_MEMORY = 8  # connections whose acknowledgements count: a broker may have been given a lower limit since
_LASTS = 86_400.0  # seconds for which a limit is believed: a broker may have been given a higher one since

Finding = Literal["unrelated", "doubtful", "suspected", "convicted"]


def packet_size(topic: str, payload: int) -> int:
    """Bytes of a PUBLISH at most, its fixed header included (MQTT 3.1.1, section 3.3): type, longest length, topic's
    length, message id, no properties."""
    return (len(topic) if topic.isascii() else len(topic.encode())) + payload + 10


class PacketLimit:
    """What one broker has taken and what it has not. It outlives the connections.

    Only a message that is larger than all that the broker has lately acknowledged comes under suspicion. It is then
    sent alone, behind others that are acknowledged on the same connection (``Caution``), so that a broker that closes
    its connections for another reason, whatever the rhythm, takes no reading from anybody.
    """

    def __init__(self) -> None:
        self._taken = deque([0], _MEMORY)  # the largest acknowledged, connection by connection
        self._closed = 0
        self._alone = 0
        self._accused = 0  # the largest that was in flight at the last of those ends
        self._largest: int | None = None
        self._until = 0.0

    @property
    def controls(self) -> int:
        """How many messages go ahead of one that is sent alone: another number each time."""
        return self._alone + 1

    def largest(self, now: float) -> int | None:
        """Bytes that may be sent to it, as far as that had to be found out; None: nothing is known."""
        return self._largest if now < self._until else None

    def connected(self) -> None:
        """A connection begins."""
        self._taken.append(0)

    def suspect(self, size: int) -> bool:
        """Whether a message of so many bytes must be sent alone."""
        return self._closed >= _SUSPECTED and size > self._proven()

    def _proven(self) -> int:
        return max(_FLOOR, *self._taken)

    def acknowledged(self, size: int) -> None:
        """The broker has taken so much."""
        if size > self._taken[-1]:
            if size > self._proven():
                self._alone = 0
                if size >= self._accused:
                    self._closed = 0
            self._taken[-1] = size

    def refused(self, size: int, now: float) -> None:
        """So much is too large."""
        self._largest, self._until = size - 1, now + _LASTS
        self._alone = 0

    def closed(self, sizes: Sequence[int], now: float, *, said: bool) -> Finding:
        """It has ended a connection on which messages of these sizes were not acknowledged; said: as too large."""
        if said:  # whatever it took before
            self._taken = deque([0], _MEMORY)
        taken = self._proven()
        if not any(size > taken for size in sizes):
            self._closed = self._alone = 0
            return "unrelated"
        self._accused = max(sizes)
        careful = self._closed >= _SUSPECTED
        self._closed = max(self._closed + 1, _SUSPECTED if said else 0)
        if careful and len(sizes) == 1:
            self._alone += 1
            if said or self._alone >= _CONVICTED:
                self.refused(sizes[0], now)
                return "convicted"
        return "suspected" if self._closed >= _SUSPECTED else "doubtful"

    def judge(self, error: LinkError, left: Sequence[Sent], url: BrokerUrl, now: float) -> tuple[LinkError, bool]:
        """Why a connection has ended that left these unacknowledged: the error as it was, or a better one.

        True: the broker's limit has been found.
        """
        if error.reason not in ("lost", "too_large"):
            return error, False
        from agent.mqtt_errors import too_large

        finding = self.closed([sent.size for sent in left], now, said=error.reason == "too_large")
        if finding not in ("suspected", "convicted"):
            return error, False
        largest = max(left, key=lambda sent: sent.size)
        certain = finding == "convicted"
        return too_large(0 if certain else self._closed, largest.size, largest.topic, url), certain


class Caution:
    """Sends a message under suspicion alone, behind others of which the broker has taken their like; one connection's.

    Those are its first retained message, the birth, once more: it says nothing new to anybody.
    """

    def __init__(self, limit: PacketLimit) -> None:
        self.holds = False
        """Nothing else may be published: one under suspicion is in flight, or goes as soon as no other one is."""
        self._limit = limit
        self._control: tuple[str, bytes] | None = None
        self._sent = False

    def note(self, topic: str, payload: bytes) -> None:
        """A retained message is published."""
        if self._control is None or self._control[0] == topic:
            self._control = (topic, payload)

    def may_go(self, busy: bool) -> bool:
        """Whether one under suspicion may be published; busy: others are in flight."""
        self.holds = True
        return not busy and (self._sent or self._control is None)

    def controls(self, busy: bool) -> list[tuple[str, bytes]]:
        """What has to be published before, now."""
        if busy or self._sent or self._control is None:
            return []
        self._sent = True
        return [self._control] * self._limit.controls

    def settled(self) -> bool:
        """Nothing is in flight any more. Whether that was waited for."""
        held, self.holds = self.holds, False
        return held

    def gone(self) -> None:
        """The one under suspicion is published; the next one needs controls of its own."""
        self._sent = False
