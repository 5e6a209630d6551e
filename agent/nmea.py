"""NMEA 0183: sentences of a GNSS receiver, and which of them belong to one fix. Pure.

A line is ``$``, talker and kind, fields, ``*`` and the exclusive or of all between. ``pynmeagps`` decodes the fields;
it is given in, so that nothing here imports it.

Source: NMEA 0183, version 4.11, chapter 6; u-blox M10 interface description UBX-21035062, section 2.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import reduce
from operator import xor
from typing import Any, Final

from agent.framing import SAMPLE
from agent.model import Fault, Sample, Value

LONGEST: Final = 1024
"""Bytes of a line: the standard says 82, but u-blox's own PUBX,03 has 22 for each of thirty satellites."""
KNOT: Final = 1852 / 3600
"""In m/s."""
MOST_NEEDED: Final = 64
"""Fixes that must end alike, at most, until their end is believed again; it doubles each time that it was wrong."""

FIELDS: Final = {
    "GGA": {
        "lat": "latitude", "lon": "longitude", "alt": "altitude", "sep": "geoid_separation", "quality": "fix",
        "numSV": "satellites", "HDOP": "hdop",
    },
    "GNS": {
        "lat": "latitude", "lon": "longitude", "alt": "altitude", "sep": "geoid_separation", "numSV": "satellites",
        "HDOP": "hdop",
    },
    "RMC": {"lat": "latitude", "lon": "longitude", "spd": "speed", "cog": "course", "mv": "magnetic_variation"},
    "GLL": {"lat": "latitude", "lon": "longitude"},
    "VTG": {"sogn": "speed", "cogt": "course"},
    "GSA": {"navMode": "mode", "PDOP": "pdop", "HDOP": "hdop", "VDOP": "vdop"},
    "GST": {"stdLat": "latitude_error", "stdLong": "longitude_error", "stdAlt": "altitude_error"},
    "GSV": {},
    "ZDA": {},
}  # fmt: skip
"""What is read, by kind of sentence: pynmeagps' names and ours."""
OF_A_FIX: Final = ("latitude", "longitude", "altitude", "geoid_separation", "speed", "course")
"""What means nothing without a fix, though some send it: 0 N 0 E (Skytraq), the north pole (MediaTek)."""
SEVERAL: Final = ("GSA", "GSV")
"""Kinds of which one fix has several."""

_SENTENCE: Final = re.compile(rb"\$(([A-Z]{2})([A-Z]{3}),[ -)+-~]*|[ -)+-~]+)(?:\*([0-9A-Fa-f]{2}))?\s*")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence that was understood. message: all fields by pynmeagps' names; fields: those that are read, by ours."""

    talker: str
    kind: str
    message: Mapping[str, Any]
    fields: Mapping[str, Value]


class SentenceReader:
    """Lines to sentences."""

    def __init__(
        self,
        decode: Callable[..., Any],
        undecodable: tuple[type[Exception], ...],
        limits: Mapping[str, tuple[float, float]],
        *,
        needs_checksum: bool = True,
    ) -> None:
        """decode: pynmeagps' NMEAReader.parse; undecodable: what it raises; limits: of our names, both inclusive."""
        self._decode = decode
        self._undecodable = undecodable
        self._limits = limits
        self._needs_checksum = needs_checksum

    def read(self, line: bytes) -> Sentence | Fault | None:
        """What a line from "$" on says; None if it is of a kind that is not read. Fault: syntax, checksum, range."""
        found = _SENTENCE.fullmatch(line)
        if found is None:
            return Fault("syntax", "not a sentence", line[:SAMPLE])
        body, told, ours = found[1], found[4], reduce(xor, found[1])
        if told is None and self._needs_checksum:
            return Fault("checksum", "a sentence without a checksum", line[:SAMPLE])
        if told is not None and int(told, 16) != ours:
            return Fault("checksum", f"{ours:02X}, not {told.decode()}", line[:SAMPLE])
        if found[3] and (kind := found[3].decode()) in FIELDS and found[2][:1] != b"P":
            return self._decoded(kind, b"$%s*%02X\r\n" % (body, ours))
        return None

    def _decoded(self, kind: str, line: bytes) -> Sentence | Fault:
        try:
            decoded = self._decode(line, validate=0)
        except self._undecodable:
            decoded = None
        if decoded is None:
            return Fault("syntax", f"{kind} that cannot be decoded", line[:SAMPLE])
        message = vars(decoded)
        fields = read_fields(kind, message)
        for name, number in fields.items():
            low, high = self._limits.get(name, (0, 1))
            if not low <= number <= high:
                return Fault("range", f"{kind}: {name} is not within {low:g} to {high:g}", line[:SAMPLE])
        return Sentence(line[1:3].decode(), kind, message, fields)


def read_fields(kind: str, message: Mapping[str, Any]) -> dict[str, Any]:
    """What is read of a sentence, by our names and in our units; without a fix nothing that needs one."""
    fields = {ours: message[theirs] for theirs, ours in FIELDS[kind].items() if message.get(theirs, "") != ""}
    if kind in ("RMC", "VTG") and "speed" in fields:
        fields["speed"] = round(fields["speed"] * KNOT, 3)
    if "magnetic_variation" in fields and message.get("mvEW") == "W":
        fields["magnetic_variation"] = -fields["magnetic_variation"]
    if message.get("status") in ("A", "V"):
        fields["valid"] = message["status"] == "A"
    no_fix = message.get("status") == "V" or message.get("quality") == 0
    if no_fix or not str(message.get("posMode", "A")).strip("N"):
        return {name: value for name, value in fields.items() if name not in OF_A_FIX}
    return fields


class Fixes:
    """Sentences to fixes: one Sample each.

    A fix ends where a sentence has another time, or stands there a second time. Which sentence is the last of one is
    learnt, so that it need not wait for the next.
    """

    def __init__(self) -> None:
        self._agree, self._needed, self._last = 0, 2, ""
        self._closed = False  # the present fix has been given
        self._begin()

    def _begin(self) -> None:
        self._fields: dict[str, Value] = {}
        self._time: Any = None
        self._date: date | None = None
        self._in_view: dict[str, int] = {}
        self._seen: Counter[str] = Counter()
        self._latest = ""

    def add(self, sentence: Sentence) -> list[Sample]:
        """The fixes that end before this sentence, or with it."""
        talker, kind, message = sentence.talker, sentence.kind, sentence.message
        items: list[Sample] = []
        when = message.get("time") or None
        more = kind == "GSV" and message.get("msgNum") != message.get("numMsg")
        name = f"{talker}{kind}{message.get('systemId', '')}{message.get('signalID', '')}{'+' if more else ''}"
        again = kind not in SEVERAL and name in self._seen
        if again or (when is not None and self._time is not None and when != self._time):
            self._learn()
            items += self._given()
            self._begin()
        elif self._closed:  # it belongs to a fix that was given too early: it makes one of its own
            self._agree, self._needed = 0, min(2 * self._needed, MOST_NEEDED)
        self._closed = False
        self._seen[name] += 1
        self._latest = f"{name} {self._seen[name]}"
        self._time = when or self._time
        if kind == "ZDA":
            self._date = _date(message) or self._date
        elif message.get("date"):
            self._date = message["date"]
        if kind == "GSV" and isinstance(message.get("numSV"), int) and 0 <= message["numSV"] < 256:
            self._in_view[talker] = max(self._in_view.get(talker, 0), message["numSV"])
        for field, value in sentence.fields.items():
            if kind != "GLL" or field not in self._fields:  # the others know it better
                self._fields[field] = value
        if self._agree >= self._needed and self._latest == self._last:
            items += self._given()
            self._closed = True
        return items

    def end(self) -> list[Sample]:
        """The fix that was coming in; nothing is known any more."""
        items = [*self._given()]
        self._begin()
        self._closed = False
        self._agree, self._needed, self._last = 0, 2, ""
        return items

    def _learn(self) -> None:
        """A fix has ended: as the one before?"""
        self._agree = self._agree + 1 if self._latest == self._last else 1
        self._last = self._latest

    def _given(self) -> Iterable[Sample]:
        """What is known of the present fix, unless it was given."""
        fields: dict[str, Value] = {}
        if self._time is not None:
            clock = self._time.isoformat("milliseconds" if self._time.microsecond else "seconds")
            fields["time"] = f"{self._date.isoformat()}T{clock}Z" if self._date else f"{clock}Z"
        fields |= self._fields
        if self._in_view:
            fields["satellites_in_view"] = sum(self._in_view.values())
        if not fields or self._closed:
            return ()
        self._fields, self._in_view = {}, {}
        return (Sample(fields),)


def _date(message: Mapping[str, Any]) -> date | None:
    try:
        return date(message["year"], message["month"], message["day"])
    except (KeyError, TypeError, ValueError, OverflowError):  # empty, no such day, or more than a C int holds
        return None
