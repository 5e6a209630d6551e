"""Electricity meters that push SML: the binary protocol of Germany's electronic meters (eHZ, EDL21, mME).

Device: EMH, ISKRA, EasyMeter, Holley, DZG, eBZ, Itron, Dr. Neuhaus and others, by an infrared head on the meter's
front.

Wire format: 9600 baud, 8N1, a telegram every one to five seconds. 1B 1B 1B 1B 01 01 01 01, messages, up to three zeros
as filling, 1B 1B 1B 1B 1A, the number of filling bytes, a CRC-16 over all before it. Four 1B in a message are sent
twice. A message is a tree of lists, numbers and strings, each behind a byte of type and length; GetList.Res holds the
registers: OBIS code, status, time, unit, scaler, value. A telegram whose CRC is wrong is one fault and no reading. What
comes before the first telegram is the tail of one, and skipped.

One telegram is one reading. Energy is in kWh, power in W, positive when it is drawn from the grid. Until the meter is
given its PIN many send whole kWh and no power. Texts (serial numbers, keys), states and values of past days are not
read.

What some meters do otherwise: Holley's DTZ541 has sent CRC-16/KERMIT, high byte first, where the specification has
CRC-16/X-25, low byte first; both are taken. DZG's DVS74 and DWS74 send a positive power as a signed number one byte too
short (356.24 W as -299.12 W); where their status says that energy is drawn, it is read as unsigned.

Source: BSI TR-03109-1, part IV b (SML 1.04; sections 6 and 8); FNN Lastenheft EDL 1.0 and MeMA 1.0; the unit's numbers:
IEC 62056-6-2, table "Enumerated values for physical units".

Sample::

    [[device]]
    name = "meter"
    driver = "sml"
    port = "/dev/serial/by-id/usb-Silicon_Labs_CP2104_USB_to_UART_Bridge_Controller_01A2B3C4-if00-port0"
    only = ["energy_import", "energy_export", "power"]
"""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import ConfigDict

from agent.driver import Channel, Context, Fault, Parser, Sample, SerialConfig, StreamDriver
from agent.framing import SAMPLE
from agent.obis import MeterSettings
from agent.sml import TelegramFramer, registers


class SmlConfig(SerialConfig, MeterSettings):
    """What a meter that pushes SML may say."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SmlParser(Parser):
    """Bytes to telegrams: one Sample each."""

    def __init__(self, config: SmlConfig) -> None:
        self._config = config
        self._framer = TelegramFramer()

    def feed(self, data: bytes) -> Iterable[Sample | Fault]:
        items: list[Sample | Fault] = []
        for telegram in self._framer.feed(data):
            if isinstance(telegram, Fault):
                items.append(telegram)
                continue
            try:
                fields = self._config.chosen(registers(telegram))
            except ValueError as error:
                items.append(Fault("syntax", str(error), telegram[:SAMPLE]))
                continue
            if fields:
                items.append(Sample(fields))
        return items

    def end(self) -> Iterable[Sample | Fault]:
        return self._framer.end()


class Sml(StreamDriver):
    """Electricity meters that push SML (eHZ, EDL21, mME)."""

    Config = SmlConfig

    def __init__(self, config: SmlConfig, ctx: Context) -> None:
        super().__init__(config, ctx)
        self.channels: tuple[Channel, ...] = config.channels()

    def parser(self) -> Parser:
        return SmlParser(self.config)
