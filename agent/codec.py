"""Readings to payloads, and names to topics. Pure: no I/O, and the clock is handed in."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Protocol

import orjson

from agent.clock import rfc3339
from agent.codec_template import Template
from agent.model import Reading, Value

ONLINE = b"online"
OFFLINE = b"offline"

_SECOND = 1_000_000_000


class WallClock(Protocol):
    """What the codec needs of ``agent.clock.Clock``."""

    def settle(self) -> tuple[int, bool]: ...


class Codec(Protocol):
    """A form in which readings of one device make one message."""

    def encode(self, readings: Sequence[Reading], clock: WallClock, connected_mono_ns: int, array: bool) -> bytes:
        """As ``JsonCodec.encode``. array: a list also of a single reading, in forms that know the difference."""


def encode_fields(fields: dict[str, Value]) -> bytes:
    """The JSON object of a reading's fields, order kept (RFC 8259, UTF-8, compact).

    Raises ValueError on what has no JSON form or would not survive a parser: NaN, the infinities, integers beyond
    64 bits, lone surrogates.
    """
    try:
        body = orjson.dumps(fields)
    except TypeError as error:  # orjson.JSONEncodeError is one
        raise ValueError(str(error)) from None
    # orjson writes NaN and the infinities as null; a look at each value is needed only where a null came out.
    if b"null" in body:
        for name, value in fields.items():
            if type(value) is float and not math.isfinite(value):
                raise ValueError(f"{name} is {value}, which has no JSON form")
    # A copy: what orjson 3.13 returns keeps the 4 KiB it was written into (measured: 4.3 kB a reading, not 0.25).
    return b"%b" % body


def channel_topic(name: str) -> str:
    """A channel's name as a level of a topic: each byte of its UTF-8 outside ``[A-Za-z0-9_-]`` becomes ``_``."""
    return re.sub(rb"[^A-Za-z0-9_-]", b"_", name.encode("utf-8", "surrogatepass")).decode("ascii")


class Topics:
    """Every topic of one agent. ``agent`` and device names are of ``[A-Za-z0-9_-]+``, as configured."""

    def __init__(self, agent: str, base: str = "outstation", template: str | None = None) -> None:
        """template: where readings go, as ``mqtt.topic`` has it; None: where the others are."""
        self.root = f"{base}/{agent}"
        self._template = None if template is None else Template(Template(template).fill_agent(agent))
        self.availability = f"{self.root}/availability"
        self.status = f"{self.root}/status"
        self.info = f"{self.root}/info"
        self.request_filter = f"{self.root}/request/+"
        self._telemetry: dict[str, str] = {}  # one entry a device of the configuration
        self._around: dict[str, tuple[str, str]] = {}  # the same

    def telemetry(self, device: str) -> str:
        topic = self._telemetry.get(device)
        if topic is None:
            made = f"{self.root}/{device}/telemetry" if self._template is None else self._template.fill(device=device)
            topic = self._telemetry[device] = made
        return topic

    def value(self, device: str, channel: str) -> str:
        """Where a channel's bare value goes. A channel called "availability" may not be the device's own."""
        before, after = self.around(device)
        level = channel_topic(channel)
        return f"{before}{level}{'_' if level == 'availability' else ''}{after}"

    def around(self, device: str) -> tuple[str, str]:
        """What stands before and behind the channel in the topics of a device's bare values."""
        found = self._around.get(device)
        if found is None:
            if self._template is None:
                found = (f"{self.root}/{device}/", "")
            else:
                before, _, after = self._template.fill(device=device, channel="\0").partition("\0")
                found = (before, after)
            self._around[device] = found
        return found

    def device_availability(self, device: str) -> str:
        return f"{self.root}/{device}/availability"

    def set(self, device: str, channel: str) -> str:
        return f"{self.root}/{device}/{channel_topic(channel)}/set"

    def sets(self, device: str) -> str:
        """The filter of all commands to one device."""
        return f"{self.root}/{device}/+/set"

    def clash(self, others: Iterable[str], *, never: Collection[str]) -> str | None:
        """A filter of what means something else, to which a reading could go by the template; None: there is none.

        others: filters beside this agent's own, with ``+`` alone; never: names that no device has.
        """
        levels = ("availability", "status", "info", "request/+", "response/+", "fleet", "+/availability", "+/+/set")
        for other in (*(f"{self.root}/{level}" for level in levels), *others):
            if self._template is not None and self._template.meets(other, never=never):
                return other
        return None

    def response(self, op: str) -> str:
        return f"{self.root}/response/{op}"


class JsonCodec:
    """``{"ts":…,"seq":…,"fields":{…}}``, and ``resumed``, ``clock``, ``backfill`` only where they are true."""

    def __init__(self) -> None:
        self._second = -1  # the second whose text _prefix is: a call of strftime costs more than all the rest
        self._prefix = b""

    def encode(self, readings: Sequence[Reading], clock: WallClock, connected_mono_ns: int, array: bool) -> bytes:
        """One message: a JSON array of the readings, or (``array`` false) the one reading as an object.

        connected_mono_ns: when the present connection came up; what was taken before is marked ``backfill``.
        Raises ValueError unless there is exactly one reading for an object, or at least one for an array.
        """
        if not readings or (not array and len(readings) > 1):
            raise ValueError(f"{len(readings)} readings in one {'array' if array else 'object'}")
        offset_ns, trusted = clock.settle()
        parts = []
        for reading in readings:
            settled = reading.wall_ns
            second, rest = divmod(reading.mono_ns + offset_ns if settled is None else settled, _SECOND)
            if second != self._second:
                self._prefix = rfc3339(second * _SECOND)[:19].encode("ascii")
                self._second = second
            tail = b',"resumed":true' if reading.resumed else b""
            if reading.unsynced or (settled is None and not trusted):
                tail += b',"clock":"unsynced"'
            if settled is not None or reading.mono_ns < connected_mono_ns:
                tail += b',"backfill":true'
            parts.append(
                b'{"ts":"%b.%06dZ","seq":%d,"fields":%b%b}'
                % (self._prefix, rest // 1000, reading.seq, reading.body, tail)
            )
        return b"[%b]" % b",".join(parts) if array else parts[0]


def stamped(
    readings: Sequence[Reading], clock: WallClock, connected_mono_ns: int, array: bool
) -> Iterator[tuple[Reading, int, dict[str, Any]]]:
    """Each reading with its wall time in nanoseconds since 1970, and what is out of the ordinary, as JSON names it.

    For forms other than JSON, whose codec has this written out for speed. Raises ValueError as that does.
    """
    if not readings or (not array and len(readings) > 1):
        raise ValueError(f"{len(readings)} readings in one {'array' if array else 'object'}")
    offset_ns, trusted = clock.settle()
    for reading in readings:
        settled = reading.wall_ns
        marks: dict[str, Any] = {}
        if reading.resumed:
            marks["resumed"] = True
        if reading.unsynced or (settled is None and not trusted):
            marks["clock"] = "unsynced"
        if settled is not None or reading.mono_ns < connected_mono_ns:
            marks["backfill"] = True
        yield reading, reading.mono_ns + offset_ns if settled is None else settled, marks
