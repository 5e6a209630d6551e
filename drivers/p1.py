"""Smart meters with a P1 port: the Netherlands, Belgium, Luxembourg, Sweden, Hungary, Ireland, and others.

Device: DSMR 2.2 to 5, ESMR 5, Belgium's eMUCS-P1, with the gas, water and heat meters that report to it by M-Bus.

Wire format: lines of text from "/" to "!", every 10 s (DSMR 2 to 4) or every second (5). From DSMR 4 on the "!" is
followed by a CRC-16 (polynomial 0x8005 reflected, initial value 0) over all from "/" to "!"; a telegram whose CRC is
wrong is one fault and no reading. In DSMR 2 and 3 there is none: a line that is no data set then spoils the whole
telegram. What comes before the first "/" is the tail of a telegram, and skipped.

DSMR 4 and 5 send at 115200 baud, 8N1 (the default here); 2.2 and 3 at 9600 baud, 7E1: ``baudrate = 9600``,
``bytesize = 7``, ``parity = "even"``. The line is inverted; P1 cables do that. The meter sends while its "data request"
pin is high; cables that have it on RTS need ``rts = true``.

One telegram is one reading. Energy is in kWh, power in W, whatever the meter says. A meter behind the meter is ``gas``,
``water``, ``heat`` ..., and ``gas_time`` is when that was read (hourly, or every five minutes); a second one of a kind
keeps its code, "0-2:24.2.1". Texts (serial numbers, messages), lists of the past and encrypted telegrams are not read.

Source: DSMR P1 Companion Standard 2.2, 4.2.2 and 5.0.2 (sections 6.2 and 6.12); Fluvius eMUCS-P1 1.7.1; EN 13757-3
(kinds of M-Bus meters).

Sample::

    [[device]]
    name = "meter"
    driver = "p1"
    port = "/dev/serial/by-id/usb-FTDI_FT232R_USB_UART_AC2F17KR-if00-port0"
    only = ["energy_import_t1", "energy_import_t2", "power_import", "power_export", "gas"]
"""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import ConfigDict, Field

from agent.driver import Channel, Context, Fault, Parser, Sample, SerialConfig, StreamDriver
from agent.dsmr import MBUS_REGISTERS, TelegramFramer, fields
from agent.obis import REGISTERS, MeterSettings, Register


class P1Config(SerialConfig, MeterSettings):
    """What a meter with a P1 port may say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    baudrate: int = Field(115200, ge=50, le=12_000_000, description="Bits per second; 9600 for DSMR 2.2 and 3.")

    @classmethod
    def registers(cls) -> Iterable[Register]:
        times = (Register(f"{register.name}_time", "", "timestamp", None) for register in MBUS_REGISTERS)
        return (*REGISTERS.values(), *MBUS_REGISTERS, *times)


class P1Parser(Parser):
    """Bytes to telegrams: one Sample each."""

    def __init__(self, config: P1Config) -> None:
        self._config = config
        self._framer = TelegramFramer()

    def feed(self, data: bytes) -> Iterable[Sample | Fault]:
        items: list[Sample | Fault] = []
        for telegram in self._framer.feed(data):
            if isinstance(telegram, Fault):
                items.append(telegram)
            else:
                items += self._config.reading(telegram.lines, fields, checked=telegram.checked)
        return items

    def end(self) -> Iterable[Sample | Fault]:
        return self._framer.end()


class P1(StreamDriver):
    """Smart meters with a P1 port: DSMR 2.2 to 5, ESMR, eMUCS, with gas and water by M-Bus."""

    Config = P1Config

    def __init__(self, config: P1Config, ctx: Context) -> None:
        super().__init__(config, ctx)
        self.channels: tuple[Channel, ...] = config.channels()

    def parser(self) -> Parser:
        return P1Parser(self.config)
