"""MaxBotix HRXL-MaxSonar-WR (MB7360, MB7369): distance by ultrasound, outdoors.

Device: 0.3 m to 5 m, several times a second, RS-232 or TTL.

Wire format: 9600 baud, 8N1: a capital R, four digits of millimetres, a carriage return. 5000 says: no target.

Source: MaxBotix, HRXL-MaxSonar-WR datasheet, "Pin 5: Serial Output".

Sample::

    [[device]]
    name = "silo"
    driver = "maxsonar"
    port = "/dev/ttyUSB0"
"""

from __future__ import annotations

from collections.abc import Iterable

from agent.driver import Channel, Fault, Parser, Sample, SerialConfig, StreamDriver
from agent.framing import LineFramer

NO_TARGET = 5000


class MaxSonarParser(Parser):
    """Bytes to samples; no target is a sample too, of null."""

    def __init__(self) -> None:
        self._lines = LineFramer(b"\r", longest=16)

    def feed(self, data: bytes) -> Iterable[Sample | Fault]:
        return [line if isinstance(line, Fault) else self._sample(line) for line in self._lines.feed(data)]

    def end(self) -> Iterable[Sample | Fault]:
        return self._lines.end()

    def _sample(self, line: bytes) -> Sample | Fault:
        digits = line[1:]
        if len(digits) != 4 or not line.startswith(b"R") or not digits.isdigit():
            return Fault("syntax", "not R and four digits", line)
        distance = int(digits)
        return Sample({"distance": None if distance == NO_TARGET else distance})


class MaxSonar(StreamDriver):
    """MaxBotix HRXL-MaxSonar-WR ultrasonic sensors."""

    Config = SerialConfig
    channels = (Channel("distance", "mm", 300, 4999, "distance"),)

    def parser(self) -> Parser:
        return MaxSonarParser()
