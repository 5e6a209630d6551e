"""Plantower PMS5003, PMS7003, PMSA003, PMS5003T, PMS3003: fine dust (PM1, PM2.5, PM10) by laser, and particles counted.

Device: 0 to 500 µg/m³ (at most 1000), a reading in 0.2 to 2.3 s; 5 V supply, serial levels 3.3 V. ``model``:
"pms5003" for 5003, 7003 and A003; "pms5003t" has temperature and humidity in place of the counts above 5 µm and 10 µm;
"pms3003" has no counts.

Wire format: 9600 baud, 8N1. A frame is 42 4D, the number of bytes that follow, the values, the sum of all bytes before
it; each of two bytes, high byte first. Concentrations come twice: calibrated with an industrial dust (``pm2_5_cf1``),
and for the atmosphere, which is what is wanted outside of factories (``pm2_5``). Counts are particles in 0.1 l of air
above a size in µm (``above_0_3``).

``mode = "active"``: it sends by itself. ``mode = "passive"``: it is asked once an ``interval``; with ``sleep = true``
fan and laser rest in between, woken ``warm_up`` before a question. PMS3003 has no commands: active alone.

Source: Plantower, PMS5003 series data manual V2.3 (2016), appendices I and II; PMS3003 and PMS5003T data manuals.

Sample::

    [[device]]
    name = "air"
    driver = "pms5003"
    port = "/dev/serial0"
    mode = "passive"
    interval = "2m"
    sleep = true
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Literal

from pydantic import Field

from agent.driver import Channel, Context, Fault, Parser, Port, Sample
from agent.driver_sleeper import SleeperConfig, SleeperDriver
from agent.framing_check import check_named
from agent.framing_frames import FrameFramer, FrameReader, Layout, Length

LAYOUT: Final = Layout(Length(2, 2, "big", 4), sync=b"\x42\x4d", check=check_named("sum16"), longest=40)
PM: Final = ("pm1_cf1", "pm2_5_cf1", "pm10_cf1", "pm1", "pm2_5", "pm10")
COUNTS: Final = ("above_0_3", "above_0_5", "above_1", "above_2_5", "above_5", "above_10")
FIELDS: Final = {
    "pms5003": (*PM, *COUNTS),
    "pms5003t": (*PM, *COUNTS[:4], "temperature", "humidity"),
    "pms3003": PM,
}
"""The values from byte 4 on, by model; what follows up to the sum is reserved."""
TENTHS: Final = ("temperature", "humidity")
SIZES: Final = {"pms5003": 32, "pms5003t": 32, "pms3003": 24}
ANSWER: Final = 8
"""Bytes of the answer to a command."""


class Pms5003Config(SleeperConfig):
    """What a device with this sensor may say."""

    model: Literal["pms5003", "pms5003t", "pms3003"] = Field("pms5003", description="Which frames it sends.")
    mode: Literal["active", "passive"] = Field("active", description="It sends by itself, or is asked.")

    def wrong(self) -> Iterator[str]:
        if self.model == "pms3003" and self.mode == "passive":
            yield 'PMS3003 takes no commands: mode = "active"'
        if self.mode == "active" and self.sleep:
            yield 'sleep is for mode = "passive"'
        yield from super().wrong()


def command(code: int, data: int = 0) -> bytes:
    """A command of 7 bytes: appendix II of the manual."""
    body = bytes([0x42, 0x4D, code, data >> 8, data & 0xFF])
    return body + sum(body).to_bytes(2, "big")


READ: Final = command(0xE2)
PASSIVE, ACTIVE = command(0xE1, 0), command(0xE1, 1)
SLEEP, WAKE = command(0xE4, 0), command(0xE4, 1)


class Pms5003Parser(FrameReader, Parser):
    """Frames to samples."""

    def __init__(self, model: str, *, answer: bool = False) -> None:
        self._names = FIELDS[model]
        self._size = SIZES[model]
        super().__init__(FrameFramer(LAYOUT), self._sample, answer=answer)

    def _sample(self, frame: bytes) -> Iterable[Sample | Fault]:
        if len(frame) == ANSWER:
            return ()
        if len(frame) != self._size:
            return (Fault("syntax", f"a frame of {len(frame)} bytes, where {self._size} are due: which model?", frame),)
        raw = {name: frame[4 + 2 * i : 6 + 2 * i] for i, name in enumerate(self._names)}
        fields = {name: int.from_bytes(value, "big", signed=name == "temperature") for name, value in raw.items()}
        return (Sample({name: value / 10 if name in TENTHS else value for name, value in fields.items()}),)


def channel(name: str) -> Channel:
    """Unit and limits of a value, by the manual."""
    if name == "temperature":
        return Channel(name, "°C", -20, 99, "temperature", "measurement")
    if name == "humidity":
        return Channel(name, "%", 0, 99, "humidity", "measurement")
    if name in COUNTS:
        return Channel(name, "1/dl", 0, 65535, None, "measurement")
    return Channel(name, "µg/m³", 0, 1000, name.removesuffix("_cf1").replace("_", ""), "measurement")


class Pms5003(SleeperDriver):
    """Plantower PMS5003, PMS7003, PMSA003, PMS5003T, PMS3003: fine dust and particles; may sleep between questions."""

    Config = Pms5003Config
    channels = tuple(map(channel, FIELDS["pms5003"]))

    def __init__(self, config: Pms5003Config, ctx: Context) -> None:
        super().__init__(config, ctx)
        self.channels = tuple(map(channel, FIELDS[config.model]))

    def parser(self) -> Parser:
        return Pms5003Parser(self.config.model, answer=self.config.mode == "passive")

    def request(self) -> bytes:
        return PASSIVE + READ if self.config.sleep else READ  # some wake in active mode

    def wake(self) -> bytes:
        return WAKE

    def rest(self) -> bytes:
        return SLEEP

    def start(self, port: Port | None) -> None:
        assert port is not None
        if self.config.mode == "passive":
            port.write(WAKE + PASSIVE)  # it may be asleep, after a restart of ours
            super().start(port)
            return
        if self.config.model != "pms3003":
            port.write(WAKE + ACTIVE)
        self.ctx.stream(port, self.parser())
