"""A message from the broker, with what MQTT 5 lets its sender say of the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from paho.mqtt.client import MQTTMessage

BARE = b"\x00"
"""The properties of a PUBLISH that has none (MQTT 5, section 3.3.2.3.1)."""

_CORRELATION_DATA = b"\x09"  # section 3.3.2.3.6


class Message(NamedTuple):
    """expiry: seconds that are left of its Message Expiry Interval. The last three: None without MQTT 5, or unsaid."""

    topic: str
    payload: bytes
    retained: bool
    response_topic: str | None = None
    correlation: bytes | None = None
    expiry: int | None = None


def received(message: MQTTMessage) -> Message:
    """As paho has it. Raises UnicodeDecodeError where the topic is not UTF-8."""
    said = message.properties
    return Message(
        message.topic,
        bytes(message.payload),
        message.retain,
        getattr(said, "ResponseTopic", None),
        getattr(said, "CorrelationData", None),
        getattr(said, "MessageExpiryInterval", None),
    )


def correlated(correlation: bytes | None) -> bytes:
    """The properties of an answer, their length before them (section 2.2.2): the asker's correlation data, unchanged.

    correlation: at most 65,535 bytes.
    """
    if correlation is None:
        return BARE
    body = _CORRELATION_DATA + len(correlation).to_bytes(2) + correlation
    size, left = bytearray(), len(body)
    while left > 127:
        size.append(left & 127 | 128)
        left >>= 7
    size.append(left)
    return bytes(size) + body
