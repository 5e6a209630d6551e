"""SML, the Smart Message Language: telegrams in a stream of bytes, and the registers of a meter in them. Pure.

Transport: ``ESCAPE 01 01 01 01``, messages, up to three zeros as filling, ``ESCAPE 1A``, the number of filling bytes, a
CRC-16 over all before it; four 1B among the messages are sent twice. A message is a tree of lists, numbers and strings,
each behind a byte of type and length; GetList.Res holds the registers.

Source: BSI TR-03109-1, part IV b (SML 1.04; sections 6, the tree, and 8, the transport); the unit's numbers: IEC
62056-6-2, table "Enumerated values for physical units". What single meters do otherwise stands in ``drivers.sml``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

from agent.framing import SAMPLE
from agent.framing_check import CRCS, crc
from agent.model import Fault, Value
from agent.obis import value

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


class Signed(int):
    """A signed number, with what is needed where a meter meant an unsigned one."""

    size: int


class TelegramFramer:
    """A stream to telegrams: the bytes of each whose CRC fits, from ``BEGIN`` to the CRC; a Fault for all else.

    What comes before the first telegram is the tail of one, and skipped in silence.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()  # within a telegram: from BEGIN on
        self._within = False
        self._at = 0  # up to here the telegram has been looked through
        self._skipped = bytearray()  # the first bytes since the last telegram
        self._in_step = False  # what is skipped was lost, and is not the tail of a telegram

    def feed(self, data: bytes) -> list[bytes | Fault]:
        """What data completes."""
        self._buffer += data
        items: list[bytes | Fault] = []
        while self._begins(items) if not self._within else self._ends(items):
            pass
        return items

    def end(self) -> list[Fault]:
        """Half a telegram is a Fault("cut")."""
        left = bytes(self._buffer[:SAMPLE]) if self._within else b""
        self._buffer.clear()
        self._skipped.clear()
        self._within = self._in_step = False
        self._at = 0
        return [Fault("cut", "the stream ended within a telegram", left)] if left else []

    def _begins(self, items: list[bytes | Fault]) -> bool:
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

    def _ends(self, items: list[bytes | Fault]) -> bool:
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
            items.append(_checked(bytes(buffer[: after + 4])))
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

    def _needs_more(self, items: list[bytes | Fault]) -> bool:
        if len(self._buffer) < LONGEST:
            return False
        items.append(Fault("too_long", f"a telegram of more than {LONGEST} bytes", bytes(self._buffer[:SAMPLE])))
        self._leave(LONGEST - len(BEGIN) + 1)  # the next one may begin in what is left
        self._in_step = False
        return True

    def _leave(self, length: int) -> None:
        del self._buffer[:length]
        self._within = False


def _checked(telegram: bytes) -> bytes | Fault:
    body, told = telegram[:-2], telegram[-2:]
    due = x25(body).to_bytes(2, "little")
    if told in (due, kermit(body).to_bytes(2, "big")):
        return telegram
    return Fault("checksum", f"CRC {due.hex(' ')}, not {told.hex(' ')}", telegram[:SAMPLE])


def registers(telegram: bytes) -> dict[str, Value]:
    """Names and values, as ``obis`` has them, of a telegram that ``TelegramFramer`` gave. Raises ValueError."""
    filling = telegram[-3]
    fields: dict[str, Value] = {}
    for message in _messages(telegram[len(BEGIN) : -8 - filling].replace(ESCAPE * 2, ESCAPE)):
        for name, read in _registers(message):
            fields.setdefault(name, read)
    return fields


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
