"""Winsen MH-Z19, MH-Z19B and MH-Z19C: carbon dioxide by infrared, 400 to 2000, 5000 or 10000 ppm.

Device: ± (50 ppm + 5 % of the reading) once warm: 3 minutes (MH-Z19C: 1). 5 V supply, serial levels 3.3 V.

Wire format: 9600 baud, 8N1. Commands and answers have nine bytes: FF, ..., and the two's complement of the sum of the
seven between. FF 01 86 asks; the answer is FF 86, the concentration in ppm (two bytes, high byte first), four bytes
that the manual leaves open, the check. The first of the four is the temperature in the housing plus 40, in whole
degrees, by what people found out (revspace.nl/MHZ19); ``temperature = true`` publishes it.

``self_calibration``: the sensor takes the least that it saw in a day for 400 ppm (ABC). Switch it off where fresh air
never gets to it: greenhouses, barns, cellars. ``range``: its upper limit. Both are commands without an answer, sent at
each opening; without them the sensor's own setting stays. Calibration by command (0x87, 0x88) is left out: sent at the
wrong moment it spoils the sensor for good.

Source: Winsen, MH-Z19B user's manual V1.0 (2016), "Commands"; the range in bytes 6 and 7, where sensors
obey it (revspace.nl/MHZ19), not in 3 and 4.

Sample::

    [[device]]
    name = "co2"
    driver = "mhz19"
    port = "/dev/serial0"
    interval = "30s"
    self_calibration = false
    range = 5000
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal

from pydantic import Field

from agent.driver import Channel, Context, Fault, Parser, PollConfig, PollDriver, Port, Sample, Value
from agent.framing_check import check_named
from agent.framing_frames import FrameFramer, FrameReader, Layout

CHECK: Final = check_named("sum8-twos")
LAYOUT: Final = Layout(9, sync=b"\xff\x86", check=CHECK, check_from=1)
READ, SELF_CALIBRATION, RANGE = 0x86, 0x79, 0x99
CELSIUS: Final = 40
"""What the temperature's byte is above degrees Celsius."""


class Mhz19Config(PollConfig):
    """What a device with this sensor may say."""

    self_calibration: bool | None = Field(
        None, description="The sensor takes the least of a day for 400 ppm. Default: as the sensor is set."
    )
    range: Literal[2000, 5000, 10000] | None = Field(
        None, description="Upper limit in ppm; 10000: MH-Z19C alone. Default: as the sensor is set."
    )
    temperature: bool = Field(False, description="Publish the temperature in the housing, in whole degrees.")


def command(code: int, *data: int) -> bytes:
    """A command of nine bytes to sensor 1."""
    body = bytes([0x01, code, *data]).ljust(7, b"\0")
    return b"\xff" + body + bytes([CHECK.compute(body)])


class Mhz19Parser(FrameReader, Parser):
    """The answer to a sample."""

    def __init__(self, temperature: bool) -> None:
        self._temperature = temperature
        super().__init__(FrameFramer(LAYOUT), self._sample, answer=True)

    def _sample(self, frame: bytes) -> Iterable[Sample | Fault]:
        co2 = int.from_bytes(frame[2:4], "big")
        if not any(frame[2:8]):
            return (Fault("number", "it has no value yet: a sensor that warms up answers with zeros", frame),)
        fields: dict[str, Value] = {"co2": co2}
        if self._temperature:
            fields["temperature"] = frame[4] - CELSIUS
        return (Sample(fields),)


class Mhz19(PollDriver):
    """Winsen MH-Z19, MH-Z19B, MH-Z19C carbon dioxide sensor; self-calibration and range by configuration."""

    Config = Mhz19Config
    channels: Sequence[Channel] = (
        Channel("co2", "ppm", 0, 10000, "carbon_dioxide", "measurement"),
        Channel("temperature", "°C", -40, 85, "temperature", "measurement"),
    )

    def __init__(self, config: Mhz19Config, ctx: Context) -> None:
        super().__init__(config, ctx)
        if not config.temperature:
            self.channels = tuple(channel for channel in Mhz19.channels if channel.name != "temperature")

    def parser(self) -> Parser:
        return Mhz19Parser(self.config.temperature)

    def request(self) -> bytes:
        return command(READ)

    def start(self, port: Port | None) -> None:
        assert port is not None
        if self.config.self_calibration is not None:
            port.write(command(SELF_CALIBRATION, 0xA0 if self.config.self_calibration else 0))
        if self.config.range is not None:
            port.write(command(RANGE, 0, 0, 0, *self.config.range.to_bytes(2, "big")))
        super().start(port)
