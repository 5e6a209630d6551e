"""Readings as bare values, one message a channel: for whatever reads numbers and nothing else. Pure."""

from __future__ import annotations

import orjson

from agent.codec import Topics
from agent.model import Reading, Value


def bare(value: Value) -> bytes:
    """``21.5``, ``true``, ``null`` as in JSON; text as it is, in UTF-8 and without quotes."""
    return value.encode("utf-8") if isinstance(value, str) else orjson.dumps(value)


class ValuesCodec:
    """``outstation/<agent>/<device>/<channel>``: the value. Nothing else of a reading can be said there."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics

    def messages(self, reading: Reading) -> list[tuple[str, bytes]]:
        """Topic and payload of each channel, in the order in which the device gave them; none where it gave none."""
        topic, device = self._topics.value, reading.device
        return [(topic(device, name), bare(value)) for name, value in orjson.loads(reading.body).items()]
