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

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from pydantic import ConfigDict, Field

from agent.driver import Channel, Context, Fault, Parser, Sample, SerialConfig, StreamDriver, Value
from agent.framing import SAMPLE, LineFramer
from agent.framing_check import CRCS, crc
from agent.obis import REGISTERS, MeterSettings, Register, data_sets, measured, value

LONGEST_LINE: Final = 4096
"""Bytes: a text message has 2048 hex digits (section 6.12); thirteen months of peaks in Belgium have 700."""
LONGEST: Final = 16384
"""Bytes of one telegram: eight times the longest seen."""

MBUS: Final = {
    3: Register("gas", "m³", "gas", "total_increasing"),
    4: Register("heat", "GJ", "energy", "total_increasing"),
    6: Register("warm_water", "m³", "water", "total_increasing"),
    7: Register("water", "m³", "water", "total_increasing"),
    10: Register("cooling", "GJ", "energy", "total_increasing"),
    12: Register("heat", "GJ", "energy", "total_increasing"),
}
"""Kinds of meters by their number in EN 13757-3: heat may be measured at the outlet (4) or at the inlet (12)."""
MBUS_REGISTERS: Final = tuple(dict.fromkeys(MBUS.values()))

_MBUS: Final = re.compile(r"0-([1-9]):24\.([123])\.\d+")
_TIME: Final = re.compile(r"(\d{12})([SW]?)", re.ASCII)
_ZONE: Final = {"S": "+02:00", "W": "+01:00", "": ""}  # summer and winter in all countries with a P1 port but Ireland


crc16: Final = crc(CRCS["crc-16/arc"])
"""As section 6.2 has it."""


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
        self._framer = LineFramer(b"\n", LONGEST_LINE)
        self._telegram: list[bytes] = []  # lines since "/", without their LF
        self._size = 0
        self._skipped: bytes | None = (
            None  # the first line that stood between two telegrams; None: none, or at the start
        )
        self._begun = False

    def feed(self, data: bytes) -> Iterable[Sample | Fault]:
        items: list[Sample | Fault] = []
        for line in self._framer.feed(data):
            if isinstance(line, Fault):
                self._drop()
                items.append(line)
            elif (start := line.rfind(b"/")) >= 0:  # nowhere else in a telegram; within a line where one broke off
                items += self._between()
                self._telegram = [line[start:]]
                self._size = len(line)
                self._begun = True
            elif not self._telegram:
                if self._begun and self._skipped is None and line.strip(b"\r\0 "):
                    self._skipped = line
            elif line.startswith(b"!"):
                items += self._telegram_ends(line)
                self._drop()
            else:
                self._telegram.append(line)
                self._size += len(line) + 1
                if self._size > LONGEST:
                    items.append(Fault("too_long", f"a telegram of more than {LONGEST} bytes", self._raw()))
                    self._drop()
        return items

    def end(self) -> Iterable[Sample | Fault]:
        faults = self._framer.end()
        if self._telegram:
            faults = [Fault("cut", "the stream ended within a telegram", self._raw())]
        self._drop()
        self._begun, self._skipped = False, None
        return faults

    def _between(self) -> Iterable[Fault]:
        """What was lost before the telegram that begins now."""
        if self._telegram:
            yield Fault("syntax", "a telegram without an end", self._raw())
        elif self._skipped is not None:
            yield Fault("syntax", "a line outside of any telegram", self._skipped[:SAMPLE])
        self._skipped = None

    def _telegram_ends(self, last: bytes) -> list[Sample | Fault]:
        told = last[1:].strip()
        if told:
            is_one = re.fullmatch(rb"[0-9A-Fa-f]{1,4}", told)  # some leave out leading zeros
            crc = crc16(b"\n".join([*self._telegram, b"!"]))
            if not is_one or int(told, 16) != crc:
                return [Fault("checksum", f"CRC {crc:04X}, not {told[:8].decode('ascii', 'replace')!r}", self._raw())]
        sets, bad = data_sets(line for line in self._telegram[1:] if line.strip())
        faults = [Fault("syntax", "a line that is no data set", line[:SAMPLE]) for line in bad]
        if faults and not told:
            return [*faults]
        fields = self._config.chosen(_fields(sets))
        return [*faults, Sample(fields)] if fields else [*faults]

    def _raw(self) -> bytes:
        return b"\n".join(self._telegram[:8])[:SAMPLE]

    def _drop(self) -> None:
        self._telegram = []
        self._size = 0


def _fields(sets: list[tuple[str, list[str]]]) -> dict[str, Value]:
    fields: dict[str, Value] = {}
    kinds: dict[str, int] = {}
    later: list[tuple[str, str, list[str]]] = []
    for code, values in sets:
        if mbus := _MBUS.fullmatch(code):
            if mbus[2] == "1":
                kinds[mbus[1]] = int(values[0]) if re.fullmatch(r"[0-9]{1,3}", values[0]) else 0
            else:
                later.append((mbus[1], code, values))
        elif (number := measured(values)) and (named := value(code, *number)):
            fields.setdefault(*named)
    for meter, code, values in later:  # the kind of a meter may stand after its value
        if len(values) == 7:  # DSMR 2.2 and 3: (time)(status)(length)(count)(code)(unit)(value)
            values = [values[0], f"{values[6]}*{values[5]}"]
        number = measured(values)
        named = number and value(code, *number)
        if not named:
            continue
        register = MBUS.get(kinds.get(meter, 0))
        name = code if register is None or register.name in fields else register.name
        fields[name] = named[1]
        if when := _time(values[0]):
            fields[f"{name}_time"] = when
    return fields


def _time(text: str) -> str | None:
    """YYMMDDhhmmss with S (summer) or W (winter) -> ISO 8601; None if it is no time."""
    found = _TIME.fullmatch(text)
    try:
        return found and datetime.strptime(found[1], "%y%m%d%H%M%S").isoformat() + _ZONE[found[2]]
    except ValueError:
        return None


class P1(StreamDriver):
    """Smart meters with a P1 port: DSMR 2.2 to 5, ESMR, eMUCS, with gas and water by M-Bus."""

    Config = P1Config

    def __init__(self, config: P1Config, ctx: Context) -> None:
        super().__init__(config, ctx)
        self.channels: tuple[Channel, ...] = config.channels()

    def parser(self) -> Parser:
        return P1Parser(self.config)
