"""Retained state on its way to the broker: of each topic the newest value, once on each connection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agent.mqtt import Link


@dataclass(slots=True, eq=False)
class State:
    """Token of a retained message in flight."""

    topic: str


class States:
    """Sent at QoS 1 at least, whatever the readings have: a state is sent once, and the last one is waited for."""

    def __init__(self, first: dict[str, bytes]) -> None:
        """first: topics and payloads that go before all others on each connection."""
        self._retained = dict(first)
        self._due: dict[str, None] = {}  # topics whose newest state is not sent on this connection, in order
        self._flying: set[State] = set()

    @property
    def waiting(self) -> int:
        """How many are to be sent."""
        return len(self._due)

    @property
    def settled(self) -> bool:
        """Whether the broker has acknowledged all of them."""
        return not (self._due or self._flying)

    def keep(self, topic: str, payload: bytes, *, again: bool = False) -> bool:
        """The topic's newest value. Whether there is something to send: it has changed, or goes out again."""
        if self._retained.get(topic) == payload and not again:
            return False
        self._retained[topic] = payload
        self._due[topic] = None
        return True

    def has(self, topic: str) -> bool:
        return topic in self._retained

    def send(self, link: Link, qos: int, warn: Callable[..., object]) -> None:
        """As many as the link has room for. Within its cork."""
        while self._due and link.room > 0:
            topic = next(iter(self._due))
            payload = self._retained[topic]
            del self._due[topic]
            if not link.fits(topic, len(payload)):
                warn("state.oversized", topic, bytes=len(payload), see="mqtt.max_packet")
                continue
            state = State(topic)
            if not link.publish(topic, payload, qos=qos or 1, retain=True, token=state):
                self._due[topic] = None
                return
            self._flying.add(state)

    def landed(self, state: State) -> None:
        self._flying.discard(state)

    def again(self) -> None:
        """A new connection: all of them, the first ones before all, then in the order in which they became known."""
        self._due = dict.fromkeys(self._retained)

    def lost(self) -> None:
        """The connection is lost, and with it what was in flight."""
        self._flying.clear()
