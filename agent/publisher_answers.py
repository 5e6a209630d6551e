"""Answers to commands on their way to the broker: few, in order, not kept on disk."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from agent.mqtt import Link
from agent.mqtt_message import BARE

MOST = 64
"""Answers that wait for the broker; of more the oldest are dropped: nobody waits for them any more."""


@dataclass(slots=True, eq=False)
class Answer:
    """One of them, and its token while it is in flight."""

    topic: str
    payload: bytes
    properties: bytes = BARE


class Answers:
    """Sent at QoS 1 at least, and again where the connection ended before the PUBACK: who asked may see one twice."""

    def __init__(self) -> None:
        self._waiting: deque[Answer] = deque(maxlen=MOST)
        self._flying: dict[Answer, None] = {}

    @property
    def waiting(self) -> int:
        """How many can be sent now."""
        return len(self._waiting)

    def add(self, answer: Answer) -> None:
        self._waiting.append(answer)

    def send(self, link: Link, qos: int) -> None:
        """As many as the link has room for. Within its cork."""
        while self._waiting and link.room > 0:
            answer = self._waiting.popleft()
            if not link.fits(answer.topic, len(answer.payload) + len(answer.properties)):
                continue  # the broker takes packets of a few hundred bytes at most; it could not be told of this either
            level = (qos or 1) if answer.properties == BARE else 1  # at QoS 2 paho has the packet, not we
            if not link.publish(answer.topic, answer.payload, qos=level, token=answer, extra=answer.properties):
                self._waiting.appendleft(answer)
                return
            self._flying[answer] = None

    def landed(self, answer: Answer) -> None:
        self._flying.pop(answer, None)

    def rewind(self) -> None:
        """The connection is lost: what it did not acknowledge waits again, before the rest."""
        again = [*self._flying, *self._waiting][-MOST:]
        self._flying.clear()
        self._waiting = deque(again, maxlen=MOST)
