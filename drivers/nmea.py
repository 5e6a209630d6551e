"""GNSS receivers (GPS, GLONASS, Galileo, BeiDou) that speak NMEA 0183: position, speed, time, quality of the fix.

Device: u-blox, Quectel, SiRF, MediaTek, Unicore and nearly every other receiver; USB "GPS mice"; marine instruments.

Wire format: lines "$GNRMC,...*5A", of talker (GP, GL, GA, GB, BD, GN ...) and kind, with the exclusive or of all
between "$" and "*" behind them; 9600 baud, older ones 4800. GGA, RMC, VTG, GLL, GNS, ZDA, GST, GSA and GSV are read;
other kinds, those of makers ("$P...") and AIS ("!...") are passed over.

One reading is one fix: a receiver says in up to twenty sentences what belongs together. A fix ends where a sentence has
another time, or stands there a second time. So that it need not wait for the next fix, the parser learns which sentence
is the last; until it knows (two fixes) a reading comes, and is stamped, when the next fix begins. ``time`` is when the
receiver was there, in UTC, with the date if RMC or ZDA gave one.

``fix`` is GGA's quality: 0 none, 1 GNSS, 2 differential, 4 RTK, 5 RTK float, 6 dead reckoning. ``mode`` is GSA's: 1
none, 2 without altitude, 3 with. What the receiver leaves empty is left out, and without a fix position, speed and
course, whatever it sends there.

The library pynmeagps decodes the sentences: pip install outstation[gps].

Source: NMEA 0183, version 4.11, chapter 6; u-blox M10 interface description UBX-21035062, section 2.

Sample::

    [[device]]
    name = "boat"
    driver = "nmea"
    port = "/dev/serial/by-id/usb-u-blox_AG_-_www.u-blox.com_u-blox_GNSS_receiver-if00"
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import date
from functools import reduce
from operator import xor
from typing import Any, Final

from pydantic import ConfigDict, Field

from agent.driver import Channel, Fault, Parser, Port, PortError, Sample, SerialConfig, StreamDriver, Value
from agent.framing import SAMPLE, LineFramer

LONGEST: Final = 1024
"""Bytes of a line: the standard says 82, but u-blox's own PUBX,03 has 22 for each of thirty satellites."""
KNOT: Final = 1852 / 3600
"""In m/s."""
MOST_NEEDED: Final = 64
"""Fixes that must end alike, at most, until their end is believed again; it doubles each time that it was wrong."""

CHANNELS: Final = (
    Channel("time"),
    Channel("latitude", "°", -90, 90),
    Channel("longitude", "°", -180, 180),
    Channel("altitude", "m", -1000, 100_000, "distance", "measurement"),
    Channel("geoid_separation", "m", -200, 200, "distance"),
    Channel("speed", "m/s", 0, 1000, "speed", "measurement"),
    Channel("course", "°", 0, 360),
    Channel("magnetic_variation", "°", -180, 180),
    Channel("valid"),
    Channel("fix", "", 0, 9),
    Channel("mode", "", 1, 3),
    Channel("satellites", "", 0, 255, None, "measurement"),
    Channel("satellites_in_view", "", 0, 255, None, "measurement"),
    Channel("pdop", "", 0, 1000, None, "measurement"),
    Channel("hdop", "", 0, 1000, None, "measurement"),
    Channel("vdop", "", 0, 1000, None, "measurement"),
    Channel("latitude_error", "m", 0, 10_000_000, "distance", "measurement"),
    Channel("longitude_error", "m", 0, 10_000_000, "distance", "measurement"),
    Channel("altitude_error", "m", 0, 10_000_000, "distance", "measurement"),
)
LIMITS: Final = {one.name: (one.low, one.high) for one in CHANNELS if one.low is not None and one.high is not None}

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


class NmeaConfig(SerialConfig):
    """What a receiver may say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    checksum: bool = Field(True, description="Take only sentences with a checksum; very old receivers send none.")


class NmeaParser(Parser):
    """Sentences to fixes."""

    def __init__(
        self, config: NmeaConfig, decode: Callable[..., Any], undecodable: tuple[type[Exception], ...]
    ) -> None:
        """decode: pynmeagps' NMEAReader.parse; undecodable: what it raises."""
        self._needs_checksum = config.checksum
        self._decode = decode
        self._undecodable = undecodable
        self._framer = LineFramer(longest=LONGEST)
        self._first = True  # the first line is mostly the end of one
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

    def feed(self, data: bytes) -> Iterable[Sample | Fault]:
        items: list[Sample | Fault] = []
        for line in self._framer.feed(data):
            if isinstance(line, Fault):
                items.append(line)
            elif line.strip(b"\0 "):
                self._line(line, items)
                self._first = False
        return items

    def end(self) -> Iterable[Sample | Fault]:
        items: list[Sample | Fault] = [*self._fix(), *self._framer.end()]
        self._begin()
        self._first, self._closed = True, False
        self._agree, self._needed, self._last = 0, 2, ""
        return items

    def _line(self, line: bytes, items: list[Sample | Fault]) -> None:
        start = line.rfind(b"$")
        if start < 0 and (self._first or line.startswith(b"!")):
            return
        if start and not self._first:
            items.append(Fault("syntax", "bytes that are no sentence", line[: start if start > 0 else None][:SAMPLE]))
        if start < 0:
            return
        line = line[start:]
        found = _SENTENCE.fullmatch(line)
        if found is None:
            items.append(Fault("syntax", "not a sentence", line[:SAMPLE]))
            return
        body, told, ours = found[1], found[4], reduce(xor, found[1])
        if told is None and self._needs_checksum:
            items.append(Fault("checksum", "a sentence without a checksum", line[:SAMPLE]))
        elif told is not None and int(told, 16) != ours:
            items.append(Fault("checksum", f"{ours:02X}, not {told.decode()}", line[:SAMPLE]))
        elif found[3] and (kind := found[3].decode()) in FIELDS and found[2][:1] != b"P":
            self._sentence(kind, b"$%s*%02X\r\n" % (body, ours), items)

    def _sentence(self, kind: str, line: bytes, items: list[Sample | Fault]) -> None:
        try:
            decoded = self._decode(line, validate=0)
        except self._undecodable:
            decoded = None
        if decoded is None:
            items.append(Fault("syntax", f"{kind} that cannot be decoded", line[:SAMPLE]))
            return
        message = vars(decoded)
        fields = {ours: message[theirs] for theirs, ours in FIELDS[kind].items() if message.get(theirs, "") != ""}
        if kind in ("RMC", "VTG") and "speed" in fields:
            fields["speed"] = round(fields["speed"] * KNOT, 3)
        if "magnetic_variation" in fields and message.get("mvEW") == "W":
            fields["magnetic_variation"] = -fields["magnetic_variation"]
        if message.get("status") in ("A", "V"):
            fields["valid"] = message["status"] == "A"
        if (
            message.get("status") == "V"
            or message.get("quality") == 0
            or not str(message.get("posMode", "A")).strip("N")
        ):
            fields = {name: value for name, value in fields.items() if name not in OF_A_FIX}
        for name, number in fields.items():
            low, high = LIMITS.get(name, (0, 1))
            if not low <= number <= high:
                items.append(Fault("range", f"{kind}: {name} is not within {low:g} to {high:g}", line[:SAMPLE]))
                return
        self._take(kind, line[1:3].decode(), message, fields, items)

    def _take(
        self, kind: str, talker: str, message: dict[str, Any], fields: dict[str, Value], items: list[Sample | Fault]
    ) -> None:
        when = message.get("time") or None
        more = kind == "GSV" and message.get("msgNum") != message.get("numMsg")
        name = f"{talker}{kind}{message.get('systemId', '')}{message.get('signalID', '')}{'+' if more else ''}"
        again = kind not in SEVERAL and name in self._seen
        if again or (when is not None and self._time is not None and when != self._time):
            self._learn()
            items += self._fix()
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
        for field, value in fields.items():
            if kind != "GLL" or field not in self._fields:  # the others know it better
                self._fields[field] = value
        if self._agree >= self._needed and self._latest == self._last:
            items += self._fix()
            self._closed = True

    def _learn(self) -> None:
        """A fix has ended: as the one before?"""
        self._agree = self._agree + 1 if self._latest == self._last else 1
        self._last = self._latest

    def _fix(self) -> Iterable[Sample]:
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


def _date(message: dict[str, Any]) -> date | None:
    try:
        return date(message["year"], message["month"], message["day"])
    except (KeyError, TypeError, ValueError):  # empty, or no such day
        return None


class Nmea(StreamDriver):
    """GNSS receivers (GPS, GLONASS, Galileo, BeiDou) that speak NMEA 0183; one reading a fix."""

    Config = NmeaConfig
    channels = CHANNELS

    @classmethod
    def lacks(cls, config: Any) -> str | None:  # noqa: ARG003
        try:
            import pynmeagps  # noqa: F401
        except ImportError as error:
            return f"pynmeagps cannot be imported ({error}); pip install 'outstation[gps]'"
        return None

    def open(self) -> Port | None:
        """Also imports the library, which takes a while: here, on a worker."""
        if missing := self.lacks(self.config):
            raise PortError("unsupported", missing)
        return super().open()

    def parser(self) -> Parser:
        from pynmeagps import NMEAMessageError, NMEAParseError, NMEAReader, NMEAStreamError, NMEATypeError

        undecodable = (NMEAMessageError, NMEAParseError, NMEAStreamError, NMEATypeError)
        return NmeaParser(self.config, NMEAReader.parse, undecodable)
