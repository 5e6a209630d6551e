"""IEC 62056-21 (IEC 1107, "D0"): readouts in a stream of bytes, and what is said to get one. Pure.

A readout is "/XXXZ...", the meter's identification, then data sets: in a block (STX, data, "!", ETX and the exclusive
or of all behind STX), or up to "!" without a check. ``obis`` reads the data sets.

Source: IEC 62056-21:2002, sections 6.3 to 6.5 and annexes A to C (EN 61107).
"""

from __future__ import annotations

import re
from functools import reduce
from operator import xor
from typing import Final, NamedTuple

from agent.framing import SAMPLE
from agent.model import Fault

STX, ETX, ACK = b"\x02", b"\x03", b"\x06"
LONGEST: Final = 16384
"""Bytes of a readout: with fifteen past months some meters send 6 kB."""
LONGEST_NAME: Final = 64
"""Bytes of the identification: the standard's 23, and what some makers add."""
RATES: Final = {b"%d" % n: 300 << n for n in range(7)}
"""Speeds in mode C, by the character that offers them (section 6.3.2)."""
RATES_B: Final = {bytes([65 + n]): 600 << n for n in range(6)}
WAKEUP: Final = bytes(65)
"""2.2 s at 300 baud, of which annex B asks for 2.1 to 2.3."""
WAKEUP_PAUSE: Final = 1.6
"""Seconds from there to the question: 1.5 to 1.7 (annex B)."""
SWITCH: Final = 0.01
"""Seconds after the last bit of "ACK 0 Z 0" until we listen at the new speed: a meter answers after 200 ms, but after
20 where the third letter of its name is small (section 6.3.2)."""
_FIRST: Final = re.compile(rb"[\x02!]")
_NAME: Final = re.compile(rb"/[A-Za-z]{3}[^()!\x02\r\n]{1,60}\r?\n")
"""An identification within a readout, which has broken off there. (A unit may hold a "/": "P/S".)"""
BITS: Final = 10
"""Of a character: start, seven, parity, stop."""


class Readout(NamedTuple):
    """The lines of a readout, and whether the check behind them fitted; False: there was none."""

    lines: list[bytes]
    checked: bool


class ReadoutFramer:
    """A stream to readouts, and a Fault for what is none. What comes before the first is skipped in silence."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skipped = bytearray()
        self._in_step = False  # what is skipped was lost, and is not the tail of a readout
        self.name = b""
        """The identification, "/XXXZ...", of the readout that is coming in; b"" between readouts."""
        self.ended = 0
        """Readouts that have ended, well or not."""

    def feed(self, data: bytes) -> list[Readout | Fault]:
        """What data completes."""
        self._buffer += data
        items: list[Readout | Fault] = []
        while self._begins(items) if not self.name else self._ends(items):
            pass
        return items

    def end(self) -> list[Fault]:
        """A part of a readout is a Fault("cut")."""
        left = (self.name + b"\r\n" + self._buffer)[:SAMPLE] if self.name else b""
        self._buffer.clear()
        self._skipped.clear()
        self._in_step, self.name, self.ended = False, b"", 0
        return [Fault("cut", "the stream ended within a readout", left)] if left else []

    def _begins(self, items: list[Readout | Fault]) -> bool:
        """Look for an identification; False if more bytes are needed."""
        buffer = self._buffer
        start = buffer.find(b"/")
        self._skip(start if start >= 0 else len(buffer))
        if start < 0:
            return False
        end = buffer.find(b"\n", 0, LONGEST_NAME)
        if end < 0:
            if len(buffer) < LONGEST_NAME:
                return False
            self._skip(1)
            return True
        name = bytes(buffer[:end]).strip()
        if not re.fullmatch(rb"/[A-Za-z]{3}[ -~]+", name):  # noise, or the head's echo of what we sent, "/?!"
            if name.startswith(b"/?"):
                del buffer[: end + 1]
            else:
                self._skip(1)
            return True
        if self._in_step and self._skipped.strip(b"\0\r\n \x7f"):
            items.append(Fault("syntax", "bytes between readouts", bytes(self._skipped)))
        self._skipped.clear()
        del buffer[: end + 1]
        self.name, self._in_step = name, True
        return True

    def _skip(self, length: int) -> None:
        self._skipped += self._buffer[: min(length, SAMPLE - len(self._skipped))]
        del self._buffer[:length]

    def _ends(self, items: list[Readout | Fault]) -> bool:
        """Look for the end of the readout; False if more bytes are needed."""
        buffer, limit = self._buffer, min(len(self._buffer), LONGEST)
        first = _FIRST.search(buffer, 0, limit)
        if first is not None and first[0] == STX:
            begin = first.start() + 1
            end = buffer.find(ETX, begin, limit - 1)
            if end >= 0:
                text, told = bytes(buffer[begin : end + 1]), buffer[end + 1]
                self._leave(end + 2)
                if (ours := reduce(xor, text)) != told:
                    items.append(Fault("checksum", f"BCC {ours:02x}, not {told:02x}", text[:SAMPLE]))
                    if (again := _last_name(text)) >= 0:  # its end is missing, and the next one's is here
                        self._buffer[:0] = text[again:] + bytes([told])
                    return True
                items.append(Readout(_lines(text[:-1]), True))
                return True
        elif first is not None:
            end = buffer.find(b"\n", first.start(), limit)
            text = bytes(buffer[: first.start()])
            if end >= 0:
                again = _last_name(text)
                self._leave(again if again >= 0 else end + 1)
                if again >= 0:
                    items.append(Fault("syntax", "a readout without an end", text[: min(SAMPLE, again)]))
                else:
                    items.append(Readout(_lines(text), False))
                return True
        if len(buffer) < LONGEST:
            return False
        items.append(Fault("too_long", f"a readout of more than {LONGEST} bytes", bytes(buffer[:SAMPLE])))
        self._leave(LONGEST)
        self._in_step = False
        return True

    def _leave(self, length: int) -> None:
        del self._buffer[:length]
        self.name = b""
        self.ended += 1


def _lines(text: bytes) -> list[bytes]:
    lines = (line for line in text.replace(b"!", b"").splitlines() if line.strip(b" \0"))
    return [line for line in lines if not line.startswith(ACK)]


def _last_name(text: bytes) -> int:
    """Where the last identification in text begins, or -1."""
    return max((found.start() for found in _NAME.finditer(text)), default=-1)


def question(address: str) -> bytes:
    """What asks a meter for its readout (section 6.3.1); address: of one among several, else ""."""
    return b"/?%s!\r\n" % address.encode()


def answer(offer: bytes, *, fast: bool) -> tuple[bytes, int | None]:
    """What to say to the speed that a meter offers, and the bit rate from there on (sections 6.3.2 and 6.4).

    offer: the letter behind the three of its name; fast: its speed may be taken. b"": it goes on unasked (modes A and
    B); None: at the speed that it has.
    """
    if offer in RATES:
        return ACK + b"0" + (offer if fast else b"0") + b"0\r\n", RATES[offer] if fast else None
    return b"", RATES_B.get(offer) if fast else None
