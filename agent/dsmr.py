"""DSMR's P1: telegrams in a stream of lines, and what the meters behind the meter say in them. Pure.

A telegram goes from "/" to "!"; from DSMR 4 on a CRC-16 over all of that follows. Its lines hold the data sets that
``obis`` reads; a meter on the M-Bus has its kind in one of them, and time and value in another.

Source: DSMR P1 Companion Standard 2.2, 4.2.2 and 5.0.2 (sections 6.2 and 6.12); Fluvius eMUCS-P1 1.7.1; EN 13757-3
(kinds of M-Bus meters).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Final, NamedTuple

from agent.framing import SAMPLE, LineFramer
from agent.framing_check import CRCS, crc
from agent.model import Fault, Value
from agent.obis import DataSets, Register, measured, named, value

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


class Telegram(NamedTuple):
    """The lines between "/" and "!", and whether a CRC stood behind them, which fitted."""

    lines: list[bytes]
    checked: bool


class TelegramFramer:
    """A stream to telegrams, and a Fault for what is none. What comes before the first "/" is skipped in silence."""

    def __init__(self) -> None:
        self._framer = LineFramer(b"\n", LONGEST_LINE)
        self._telegram: list[bytes] = []  # lines since "/", without their LF
        self._size = 0
        self._skipped: bytes | None = None  # the first line that stood between two telegrams
        self._begun = False  # there was a telegram: what now stands outside of any was lost

    def feed(self, data: bytes) -> list[Telegram | Fault]:
        """What data completes."""
        items: list[Telegram | Fault] = []
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
                items.append(self._ended(line))
                self._drop()
            else:
                self._telegram.append(line)
                self._size += len(line) + 1
                if self._size > LONGEST:
                    items.append(Fault("too_long", f"a telegram of more than {LONGEST} bytes", self._raw()))
                    self._drop()
        return items

    def end(self) -> list[Fault]:
        """Half a telegram is a Fault("cut")."""
        faults = list(self._framer.end())
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

    def _ended(self, last: bytes) -> Telegram | Fault:
        told = last[1:].strip()
        if told:
            is_one = re.fullmatch(rb"[0-9A-Fa-f]{1,4}", told)  # some leave out leading zeros
            crc = crc16(b"\n".join([*self._telegram, b"!"]))
            if not is_one or int(told, 16) != crc:
                return Fault("checksum", f"CRC {crc:04X}, not {told[:8].decode('ascii', 'replace')!r}", self._raw())
        return Telegram([line for line in self._telegram[1:] if line.strip()], bool(told))

    def _raw(self) -> bytes:
        return b"\n".join(self._telegram[:8])[:SAMPLE]

    def _drop(self) -> None:
        self._telegram = []
        self._size = 0


def fields(sets: DataSets) -> dict[str, Value]:
    """Names and values of a telegram's data sets: the meter's own, then those of the meters behind it."""
    own: DataSets = []
    kinds: dict[str, int] = {}
    later: list[tuple[str, str, list[str]]] = []
    for code, values in sets:
        if mbus := _MBUS.fullmatch(code):
            if mbus[2] == "1":
                kinds[mbus[1]] = int(values[0]) if re.fullmatch(r"[0-9]{1,3}", values[0]) else 0
            else:
                later.append((mbus[1], code, values))
        else:
            own.append((code, values))
    found = named(own)
    for meter, code, values in later:  # the kind of a meter may stand after its value
        if len(values) == 7:  # DSMR 2.2 and 3: (time)(status)(length)(count)(code)(unit)(value)
            values = [values[0], f"{values[6]}*{values[5]}"]
        number = measured(values)
        told = number and value(code, *number)
        if not told:
            continue
        register = MBUS.get(kinds.get(meter, 0))
        name = code if register is None or register.name in found else register.name
        found[name] = told[1]
        if when := _time(values[0]):
            found[f"{name}_time"] = when
    return found


def _time(text: str) -> str | None:
    """YYMMDDhhmmss with S (summer) or W (winter) -> ISO 8601; None if it is no time."""
    found = _TIME.fullmatch(text)
    try:
        return found and datetime.strptime(found[1], "%y%m%d%H%M%S").isoformat() + _ZONE[found[2]]
    except ValueError:
        return None
