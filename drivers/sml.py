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

import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any, Final

from pydantic import ConfigDict

from agent.driver import Channel, Context, Fault, Parser, Sample, SerialConfig, StreamDriver, Value
from agent.framing import SAMPLE
from agent.framing_check import CRCS, crc
from agent.obis import MeterSettings, value

ESCAPE: Final = b"\x1b\x1b\x1b\x1b"
BEGIN: Final = ESCAPE + b"\x01\x01\x01\x01"
LONGEST: Final = 8192
"""Bytes of a telegram: fifteen times the longest seen, EasyMeter's and Holley's 528."""
DEEPEST: Final = 8
"""Lists within lists: an entry's time is the fifth level."""
UNITS: Final = {
    8: "deg", 13: "m3", 14: "m3", 27: "W", 28: "VA", 29: "var", 30: "Wh", 31: "VAh", 32: "varh", 33: "A", 35: "V",
    44: "Hz",
}  # fmt: skip
GET_LIST_RESPONSE: Final = 0x0701

_NO_ESCAPE: Final = re.compile(rb"[^\x1b]")


x25: Final = crc(CRCS["crc-16/ibm-sdlc"])
kermit: Final = crc(CRCS["crc-16/kermit"])


class SmlConfig(SerialConfig, MeterSettings):
    """What a meter that pushes SML may say."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Signed(int):
    """A signed number, with what is needed where a meter meant an unsigned one."""

    size: int


class SmlParser(Parser):
    """Bytes to telegrams: one Sample each."""

    def __init__(self, config: SmlConfig) -> None:
        self._config = config
        self._buffer = bytearray()  # within a telegram: from BEGIN on
        self._within = False
        self._at = 0  # up to here the telegram has been looked through
        self._skipped = bytearray()  # the first bytes since the last telegram
        self._in_step = False  # what is skipped was lost, and is not the tail of a telegram

    def feed(self, data: bytes) -> Iterable[Sample | Fault]:
        self._buffer += data
        items: list[Sample | Fault] = []
        while self._begins(items) if not self._within else self._ends(items):
            pass
        return items

    def end(self) -> Iterable[Sample | Fault]:
        left = bytes(self._buffer[:SAMPLE]) if self._within else b""
        self._buffer.clear()
        self._skipped.clear()
        self._within = self._in_step = False
        self._at = 0
        return [Fault("cut", "the stream ended within a telegram", left)] if left else []

    def _begins(self, items: list[Sample | Fault]) -> bool:
        """Look for the next telegram; False if more bytes are needed."""
        start = self._buffer.find(BEGIN)
        skipped = start if start >= 0 else max(0, len(self._buffer) - len(BEGIN) + 1)
        self._skipped += self._buffer[: min(skipped, SAMPLE - len(self._skipped))]
        del self._buffer[:skipped]
        if start < 0:
            return False
        if self._in_step and self._skipped.strip(b"\0"):
            items.append(Fault("syntax", "bytes between telegrams", bytes(self._skipped)))
        self._skipped.clear()
        self._within, self._in_step, self._at = True, True, len(BEGIN)
        return True

    def _ends(self, items: list[Sample | Fault]) -> bool:
        """Look for what is escaped, or the end; False if more bytes are needed."""
        buffer, limit = self._buffer, min(len(self._buffer), LONGEST)
        first = buffer.find(ESCAPE, self._at, limit)
        if first < 0:
            self._at = max(self._at, limit - len(ESCAPE) + 1)
            return self._needs_more(items)
        found = _NO_ESCAPE.search(buffer, first, limit)
        if found is None:
            return self._needs_more(items)
        after = found.start()
        if (after - first) % 8 < 4:  # data: each four of them twice
            self._at = after
            return True
        word = bytes(buffer[after : after + 4])
        if after + 4 > limit:
            return self._needs_more(items)
        if word[0] == 0x1A:
            items += self._telegram(bytes(buffer[: after + 4]))
            self._leave(after + 4)
        elif word == BEGIN[4:]:
            items.append(Fault("syntax", "a telegram without an end", bytes(buffer[: min(SAMPLE, after - 4)])))
            self._leave(after - 4)
        else:
            raw = bytes(buffer[: min(SAMPLE, after + 4)])
            items.append(Fault("syntax", f"unknown escape sequence {word.hex(' ')}", raw))
            self._leave(after)
            self._in_step = False
        return True

    def _needs_more(self, items: list[Sample | Fault]) -> bool:
        if len(self._buffer) < LONGEST:
            return False
        items.append(Fault("too_long", f"a telegram of more than {LONGEST} bytes", bytes(self._buffer[:SAMPLE])))
        self._leave(LONGEST - len(BEGIN) + 1)  # the next one may begin in what is left
        self._in_step = False
        return True

    def _leave(self, length: int) -> None:
        del self._buffer[:length]
        self._within = False

    def _telegram(self, telegram: bytes) -> Iterator[Sample | Fault]:
        filling, told = telegram[-3], telegram[-2:]
        body = telegram[:-2]
        due = x25(body).to_bytes(2, "little")
        if told not in (due, kermit(body).to_bytes(2, "big")):
            yield Fault("checksum", f"CRC {due.hex(' ')}, not {told.hex(' ')}", telegram[:SAMPLE])
            return
        try:
            messages = list(_messages(telegram[len(BEGIN) : -8 - filling].replace(ESCAPE * 2, ESCAPE)))
        except ValueError as error:
            yield Fault("syntax", str(error), telegram[:SAMPLE])
            return
        fields: dict[str, Value] = {}
        for message in messages:
            for one in _registers(message):
                fields.setdefault(*one)
        if fields := self._config.chosen(fields):
            yield Sample(fields)


def _messages(data: bytes) -> Iterator[Any]:
    at = 0
    while at < len(data):
        message, at = _element(data, at, 0)
        yield message


def _element(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    """One element of the tree at data[at], and where the next one is. Raises ValueError."""
    begin, kind, length = at, data[at] >> 4 & 7, data[at] & 15
    while data[at] & 0x80:
        at += 1
        if at >= len(data) or at - begin > 3:
            raise ValueError("an element with no or too long a length")
        length = length << 4 | data[at] & 15
    at += 1
    if kind == 7:
        if depth == DEEPEST or length > len(data) - at:
            raise ValueError("a list that is too deep or too long")
        entries = []
        for _ in range(length):
            if at >= len(data):
                raise ValueError("a list that ends early")
            entry, at = _element(data, at, depth + 1)
            entries.append(entry)
        return entries, at
    if data[begin] == 0:
        return None, at  # the end of a message
    end = begin + length
    if not at <= end <= len(data):
        raise ValueError("an element that is longer than the telegram")
    content = data[at:end]
    if kind == 0:
        return content, end
    if kind in (4, 5, 6) and 0 < len(content) <= 8:
        number = Signed.from_bytes(content, "big", signed=kind == 5)
        number.size = len(content)
        return number, end
    raise ValueError(f"an element of unknown type {data[begin]:02x}")


def _registers(message: Any) -> Iterator[tuple[str, Value]]:
    """Names and values of a message that is GetList.Res; nothing of any other."""
    match message:
        case [_, _, _, [int(kind), [_, bytes(server), _, _, list(entries), *_]], *_] if kind == GET_LIST_RESPONSE:
            pass
        case _:
            return
    drawn = False  # DZG: status 0x104 is "meter runs", and bit 11, "energy is delivered", is off
    for entry in entries:
        match entry:
            case [bytes(code), status, _, unit, scaler, Signed() as raw, *_] if len(code) == 6:
                if isinstance(status, int) and server[2:5] == b"DZG":
                    drawn = drawn or status & 0xFFE009FF == 0x104
                short = drawn and raw < 0 and raw.size < 4 and code[2:4] == b"\x10\x07"
                number = Decimal(raw + (1 << 8 * raw.size) if short else raw)
                power = scaler if isinstance(scaler, int) and -20 <= scaler <= 20 else 0
                unit_text = UNITS.get(unit, "") if isinstance(unit, int) else ""
                a, b, c, d, e, f = code
                named = value(f"{a}-{b}:{c}.{d}.{e}*{f}", number.scaleb(power), unit_text)
                if named is not None:
                    yield named
            case _:  # a text, a state, or what is not set
                pass


class Sml(StreamDriver):
    """Electricity meters that push SML (eHZ, EDL21, mME)."""

    Config = SmlConfig

    def __init__(self, config: SmlConfig, ctx: Context) -> None:
        super().__init__(config, ctx)
        self.channels: tuple[Channel, ...] = config.channels()

    def parser(self) -> Parser:
        return SmlParser(self.config)
