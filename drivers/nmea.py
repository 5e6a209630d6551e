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

from collections.abc import Callable, Iterable
from typing import Any, Final

from pydantic import ConfigDict, Field

from agent.driver import Channel, Fault, Parser, Port, PortError, Sample, SerialConfig, StreamDriver
from agent.framing import SAMPLE, LineFramer
from agent.nmea import LONGEST, Fixes, SentenceReader

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
        self._reader = SentenceReader(decode, undecodable, LIMITS, needs_checksum=config.checksum)
        self._framer = LineFramer(longest=LONGEST)
        self._fixes = Fixes()
        self._first = True  # the first line is mostly the end of one

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
        self._first = True
        return [*self._fixes.end(), *self._framer.end()]

    def _line(self, line: bytes, items: list[Sample | Fault]) -> None:
        start = line.rfind(b"$")
        if start < 0 and (self._first or line.startswith(b"!")):
            return
        if start and not self._first:
            items.append(Fault("syntax", "bytes that are no sentence", line[: start if start > 0 else None][:SAMPLE]))
        if start < 0:
            return
        sentence = self._reader.read(line[start:])
        if isinstance(sentence, Fault):
            items.append(sentence)
        elif sentence is not None:
            items += self._fixes.add(sentence)


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
