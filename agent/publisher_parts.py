"""Readings as they travel: together in one message, or each in several. A group is the token of its messages."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Protocol

from agent.model import Reading
from agent.mqtt import Link


class Group(list[Reading]):
    """Readings of one device in one message: the message's token."""

    __slots__ = ()


class Messages(Protocol):
    """What is asked of a codec that makes several messages of a reading: ``codec_values.ValuesCodec``."""

    def messages(self, reading: Reading) -> list[tuple[str, bytes]]: ...


class Parted(Group):
    """One reading that goes out as several messages: the token of each of them. It has arrived when all of them have.

    flying: how many are in flight; waiting: topic and payload of those to come, None before the first.
    """

    __slots__ = ("failure", "flying", "waiting")

    backlog: ClassVar[bool] = False

    def __init__(self, readings: Iterable[Reading]) -> None:
        super().__init__(readings)
        self.flying = 0
        self.waiting: deque[tuple[str, bytes]] | None = None
        self.failure = ""
        """Why one of them can never arrive: oversized, or refused. The reading is set aside when the others have."""

    def send(self, link: Link, codec: Messages, qos: int, room: int, warn: Callable[..., Any]) -> int:
        """As many messages as there is room for, in their order; the rest stays in ``waiting``. How many were sent."""
        if self.waiting is None:
            self.waiting = deque(codec.messages(self[0]))
        sent = 0
        while self.waiting and sent < room:
            topic, payload = self.waiting[0]
            if not link.fits(topic, len(payload)):
                self.failure = "oversized"
                warn("reading.oversized", topic, seq=self[0].seq, bytes=len(payload), see="mqtt.max_packet")
            elif link.publish(topic, payload, qos=qos, token=self):
                sent += 1
                self.flying += 1
            else:
                break
            self.waiting.popleft()
        return sent


class BacklogParted(Parted):
    """The same, of the backlog under ``live_first``."""

    __slots__ = ()

    backlog = True
