"""Whom a connection to a broker tells what has become of it: ``mqtt.Link``."""

from __future__ import annotations

from typing import Any, Protocol

from agent.errors import LinkError
from agent.mqtt_message import Message


class Owner(Protocol):
    """Whom a session tells; called on the loop's thread, never from within paho."""

    def session_up(self) -> None: ...

    def session_acked(self, tokens: list[Any]) -> None:
        """These messages need not be kept any more: acknowledged, or at QoS 0 written."""

    def session_refused(self, token: Any, topic: str, error: LinkError) -> None:
        """The broker has answered that it does not take this message, and would not if it came again."""

    def session_message(self, message: Message) -> None: ...

    def session_ended(self, error: LinkError | None) -> None:
        """The connection is gone; None: as we wanted it. Called once."""
