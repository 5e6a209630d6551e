"""Nova SDS011 (and SDS018, SDS021): fine dust, PM2.5 and PM10, by laser.

Device: 0 to 999.9 µg/m³, a reading a second; 5 V supply, serial levels 3.3 V. The laser lasts some 8,000 hours, a year
without a pause: ``period``, or ``mode = "query"`` with ``sleep = true``, make it last.

Wire format: 9600 baud, 8N1. A reading is AA C0, PM2.5 and PM10 in 0.1 µg/m³ (two bytes each, low byte first), the
sensor's ID (two bytes), the low byte of the sum of these six, AB. An answer to a command is the same with C5 for C0.

``mode = "active"``: it sends by itself, each second or, with ``period = 5``, after 30 s of work in every 5 minutes.
``mode = "query"``: it is asked once an ``interval``; with ``sleep = true`` it is woken ``warm_up`` before that, and
sent to sleep after the answer. The sensor keeps mode and period without power; without ``period`` its own is left.

Source: Nova Fitness, Laser Dust Sensor Control Protocol V1.3 (2015); SDS011 specification V1.3.

Sample::

    [[device]]
    name = "dust"
    driver = "sds011"
    port = "/dev/serial/by-id/usb-1a86_USB2.0-Serial-if00-port0"
    mode = "query"
    interval = "5m"
    sleep = true
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Literal

from pydantic import Field

from agent.driver import Channel, Fault, Parser, Port, Sample
from agent.driver_sleeper import SleeperConfig, SleeperDriver
from agent.framing_check import check_named
from agent.framing_frames import FrameFramer, FrameReader, Layout

LAYOUT: Final = Layout(10, sync=b"\xaa", tail=b"\xab", check=check_named("sum8"), check_from=2)
READING, ANSWER = 0xC0, 0xC5
MODE, QUERY, WORK, PERIOD = 2, 4, 6, 8
"""Commands: sections 3.1, 3.2, 3.4 and 3.5 of the protocol."""


class Sds011Config(SleeperConfig):
    """What a device with this sensor may say."""

    mode: Literal["active", "query"] = Field("active", description="It sends by itself, or is asked.")
    period: int | None = Field(
        None, ge=0, le=30, description="active: minutes from one reading to the next; 0: a reading a second."
    )

    def wrong(self) -> Iterator[str]:
        if self.mode == "query" and self.period is not None:
            yield 'period is for mode = "active"; in mode = "query" interval and sleep say it'
        if self.mode == "active" and self.sleep:
            yield 'sleep is for mode = "query"; in mode = "active" period says it'
        yield from super().wrong()


def command(*data: int) -> bytes:
    """A command to any sensor (ID FFFF), of 19 bytes: section 1 of the protocol."""
    body = bytes(data).ljust(13, b"\0") + b"\xff\xff"
    return b"\xaa\xb4" + body + bytes([sum(body) & 0xFF]) + b"\xab"


def read(frame: bytes) -> Iterable[Sample | Fault]:
    """What a frame says; answers to commands are no reading."""
    if frame[1] == READING:
        pm2_5, pm10 = (int.from_bytes(frame[at : at + 2], "little") / 10 for at in (2, 4))
        return (Sample({"pm2_5": pm2_5, "pm10": pm10}),)
    return () if frame[1] == ANSWER else (Fault("syntax", f"a frame of kind {frame[1]:02x}, not c0 or c5", frame),)


class Sds011Parser(FrameReader, Parser):
    """Frames to samples."""

    def __init__(self, *, answer: bool = False) -> None:
        super().__init__(FrameFramer(LAYOUT), read, answer=answer)


class Sds011(SleeperDriver):
    """Nova SDS011 fine dust sensor: PM2.5 and PM10; sends by itself or is asked, and may sleep between."""

    Config = Sds011Config
    channels = (
        Channel("pm2_5", "µg/m³", 0, 999.9, "pm25", "measurement"),
        Channel("pm10", "µg/m³", 0, 999.9, "pm10", "measurement"),
    )

    def parser(self) -> Parser:
        return Sds011Parser(answer=self.config.mode == "query")

    def request(self) -> bytes:
        return command(QUERY)

    def wake(self) -> bytes:
        return command(WORK, 1, 1)

    def rest(self) -> bytes:
        return command(WORK, 1, 0)

    def start(self, port: Port | None) -> None:
        assert port is not None
        # Asleep it takes no other command, and after a restart of ours it may be.
        port.write(self.wake() + command(MODE, 1, int(self.config.mode == "query")))
        if self.config.mode == "query":
            super().start(port)
            return
        if self.config.period is not None:
            port.write(command(PERIOD, 1, self.config.period))
        self.ctx.stream(port, self.parser())
