"""Readings as CBOR (RFC 8949): the same maps and arrays as in JSON, by the library cbor2. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import cbor2
import orjson

from agent.clock import rfc3339
from agent.codec import WallClock, stamped
from agent.model import Reading


class CborCodec:
    """Keys, their order and the text of ``ts`` are those of the JSON form; floats have 64 bits."""

    def encode(self, readings: Sequence[Reading], clock: WallClock, connected_mono_ns: int, array: bool) -> bytes:
        """One message: an array of maps, or (``array`` false) one map. Raises ValueError as ``JsonCodec.encode``."""
        items = [
            {"ts": rfc3339(wall_ns), "seq": reading.seq, "fields": orjson.loads(reading.body), **marks}
            for reading, wall_ns, marks in stamped(readings, clock, connected_mono_ns, array)
        ]
        return cbor2.dumps(items if array else items[0])
