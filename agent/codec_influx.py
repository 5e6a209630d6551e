"""Readings as InfluxDB line protocol, one line each. Pure.

Source: InfluxDB 2, "Line protocol" (escaping, types, naming restrictions). A line is

    weather,agent=greenhouse-1 temperature=21.5,humidity=44.1,seq=41i 1795478400123456041

The measurement is the device, because InfluxDB gives a field of a measurement one type for good: two devices whose
``state`` is a number here and a text there must not share one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import orjson

from agent.codec import WallClock, stamped
from agent.model import Reading, Value

TAKEN = frozenset({"time", "agent", "seq", "resumed", "clock", "backfill"})
"""Keys that a channel may not have: InfluxDB's own, our tag's, and those that go with each reading. It gets a "_"."""

_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f\\]")  # cannot be escaped in a key
_TO_ESCAPE = re.compile(r"([,= ])")


def _key(name: str) -> str:
    """A channel's name as a field key, not yet escaped: without what a key cannot hold."""
    return _UNWRITABLE.sub("_", name).lstrip("_") or "channel"  # "_" at the beginning is InfluxDB's own


def _value(value: Value) -> str:
    """A field's value. Numbers have no ``i``: 21 and 21.5 of one sensor must both be floats, or one is refused."""
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return orjson.dumps(value).decode()


class InfluxCodec:
    """Lines with a time stamp in nanoseconds, of which the last three digits are those of ``seq``.

    Points of one measurement with the same tags and time replace each other in InfluxDB, and lines that came with one
    look at a port have one time. It is known to the microsecond in every other form as well.
    """

    def __init__(self, agent: str) -> None:
        self._agent = agent

    def encode(self, readings: Sequence[Reading], clock: WallClock, connected_mono_ns: int, array: bool) -> bytes:
        """One message: a line each, without a newline at the end. Raises ValueError as ``JsonCodec.encode``."""
        lines = []
        for reading, wall_ns, marks in stamped(readings, clock, connected_mono_ns, array):
            fields: dict[str, str] = {}
            for name, value in orjson.loads(reading.body).items():
                if value is None:
                    continue  # there is no null
                key = _key(name)
                while key in fields or key in TAKEN:
                    key += "_"
                fields[key] = _value(value)
            fields["seq"] = f"{reading.seq}i"
            fields |= {key: _value(value) for key, value in marks.items()}
            text = ",".join(_TO_ESCAPE.sub(r"\\\1", key) + "=" + value for key, value in fields.items())
            measurement = reading.device.lstrip("_") or "device"
            time_ns = wall_ns // 1000 * 1000 + reading.seq % 1000
            lines.append(f"{measurement},agent={self._agent} {text} {time_ns}")
        return "\n".join(lines).encode()
