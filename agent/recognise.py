"""What a device sends, told from its bytes: NMEA, P1, SML, PMS5003, SDS011, JSON, key=value, CSV, numbers. Pure.

Each recogniser asks for something that noise and a wrong bit rate do not have: a checksum that fits, a frame between
its marks, or lines that are numbers throughout.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from agent.framing_check import check_named

MOST: Final = 16384
"""Bytes that are looked at, the newest: ten telegrams of P1. A look takes 30 ms at worst."""


@dataclass(frozen=True, slots=True)
class Guess:
    """What it is, and the configuration for it without name and port. found: frames or lines that say so."""

    what: str
    driver: str
    found: int
    options: dict[str, Any] = field(default_factory=dict)
    name: str = "device"
    """A name for the device in a configuration."""


def recognise(data: bytes) -> Guess | None:
    """The first of the recognisers that knows the bytes; they may begin and end anywhere."""
    data = data[-MOST:]
    for look in _LOOKS:
        if guess := look(data):
            return guess
    return None


def text_line(data: bytes) -> str | None:
    """A whole line, if all of data is printable text with at least two line endings: text that nobody here knows."""
    if not data or len(re.findall(rb"[\t\r\n -~]", data)) < 0.98 * len(data):
        return None
    lines = _lines(data)
    return lines[-1] if lines else None


# ---- frames with marks and sums


_SML: Final = re.compile(rb"\x1b{4}\x01{4}(?:(?!\x1b{4}\x01{4}).){16,}?\x1b{4}\x1a", re.DOTALL)
_P1: Final = re.compile(rb"/[^\r\n/!]{5,}\r\n\r\n([^/!]*)![0-9A-F]{0,4}\r\n")
_OBIS: Final = re.compile(rb"\d-\d{1,3}:\d{1,3}\.\d{1,3}\.\d{1,3}(?:\.\d{1,3})?\(")
_NMEA: Final = re.compile(rb"[$!]([A-Z][^\r\n*$!]{4,79})\*([0-9A-Fa-f]{2})")


def sml(data: bytes) -> Guess | None:
    """SML transport, version 1 (BSI TR-03109-1, annex IV, section 8): begin and end of a message."""
    found = len(_SML.findall(data))
    return Guess("SML, an electricity meter", "sml", found, name="meter") if found else None


def p1(data: bytes) -> Guess | None:
    """A telegram of P1 (DSMR 5.0.2 P1 companion standard, section 5.2): identification, OBIS lines, "!"."""
    found = sum(bool(_OBIS.search(body)) for body in _P1.findall(data))
    return Guess("P1 (DSMR), a smart meter", "p1", found, name="meter") if found else None


def nmea(data: bytes) -> Guess | None:
    """Sentences of NMEA 0183 whose checksum fits."""
    xor = check_named("xor8").compute
    found = sum(int(sum_, 16) == xor(body) for body, sum_ in _NMEA.findall(data))
    return Guess("NMEA 0183, a GNSS receiver or marine instrument", "nmea", found, name="gps") if found else None


def pms5003(data: bytes) -> Guess | None:
    """Frames of Plantower's fine dust sensors: 42 4D, length, sum of all before it."""
    sizes = []
    for match in re.finditer(rb"(?=BM\x00([\x14\x1c]))", data):
        size = match[1][0] + 4
        frame = data[match.start() : match.start() + size]
        if len(frame) == size and sum(frame[:-2]) & 0xFFFF == int.from_bytes(frame[-2:], "big"):
            sizes.append(size)
    if not sizes:
        return None
    options = {"model": "pms3003"} if max(sizes) == 24 else {}
    return Guess("Plantower PMS, a fine dust sensor", "pms5003", len(sizes), options, "air")


def sds011(data: bytes) -> Guess | None:
    """Readings of Nova's fine dust sensors: AA C0, six bytes, their sum, AB."""
    frames = re.findall(rb"\xaa\xc0(?=(.{7}\xab))", data, re.DOTALL)
    found = sum(sum(frame[:6]) & 0xFF == frame[6] for frame in frames)
    return Guess("Nova SDS011, a fine dust sensor", "sds011", found, name="air") if found else None


# ---- lines of text


_NUMBER: Final = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_SCALAR: Final = re.compile(rf"\s*{_NUMBER}\s*")
_CELL: Final = re.compile(rf"\s*(?:{_NUMBER}|)\s*")
_PAIR: Final = re.compile(rf"([A-Za-z_][\w.]*)([=:])({_NUMBER})")
_NAME: Final = re.compile(r"\s*[A-Za-z_][\w.\- /%()°]*\s*")
_LINES: Final = 3
"""So many lines have to be alike, where each by itself could be an accident."""


def json_lines(data: bytes) -> Guess | None:
    """Lines that are JSON objects."""
    lines = _lines(data)
    found = sum(map(_is_object, lines))
    good = found and 2 * found >= len(lines)
    return Guess("JSON objects, one a line", "lines", found, {"format": "json"}) if good else None


def pairs(data: bytes) -> Guess | None:
    """Lines of ``name=number``, with one delimiter throughout."""
    lines = _lines(data)
    for delimiter in (",", ";", None):
        for assign in "=:":
            found = sum(_is_pairs(line, delimiter, assign) for line in lines)
            if found >= _LINES and 2 * found >= len(lines):
                options: dict[str, Any] = {"format": "kv"}
                options |= {"delimiter": delimiter} if delimiter else {}
                options |= {"assign": assign} if assign != "=" else {}
                return Guess(f"pairs of name{assign}number", "lines", found, options)
    return None


def csv(data: bytes) -> Guess | None:
    """Lines of as many cells each, at least two, of which at least one is always a number."""
    lines = [line for line in _lines(data) if line[0] not in "$!"]  # NMEA whose checksums do not fit
    for delimiter in (",", ";", "\t"):
        rows = [line.split(delimiter) for line in lines]
        width = Counter(map(len, rows)).most_common(1)[0][0] if rows else 0
        alike = [row for row in rows if len(row) == width]
        numbers = [row for row in alike if any(map(_SCALAR.fullmatch, row))]
        if width < 2 or len(numbers) < _LINES or 2 * len(numbers) < len(lines):
            continue
        numeric = [all(_CELL.fullmatch(row[at]) for row in numbers) for at in range(width)]
        numeric = [so and any(row[at].strip() for row in numbers) for at, so in enumerate(numeric)]
        if not any(numeric):
            continue
        head = next((row for row in alike if row not in numbers and all(map(_NAME.fullmatch, row))), None)
        names = [cell.strip() for cell in head] if head and len({*map(str.strip, head)}) == width else []
        names = names or [f"c{at + 1}" for at in range(width)]
        columns = [name if so else "" for name, so in zip(names, numeric, strict=True)]
        options: dict[str, Any] = {"format": "csv", "columns": columns}
        options |= {"delimiter": delimiter} if delimiter != "," else {}
        return Guess(f"CSV of {width} columns", "lines", len(numbers), options)
    return None


def scalars(data: bytes) -> Guess | None:
    """Lines of one number each."""
    lines = _lines(data)
    found = sum(bool(_SCALAR.fullmatch(line)) for line in lines)
    good = found >= _LINES and 2 * found >= len(lines)
    return Guess("bare numbers, one a line", "lines", found, {"format": "scalar"}) if good else None


def _lines(data: bytes) -> list[str]:
    """Whole lines that are text and not blank: what stands before the first ending and after the last is none."""
    parts = re.split(rb"[\r\n]+", data)[1:-1]
    found = []
    for part in parts:
        try:
            text = part.decode()
        except UnicodeDecodeError:
            continue
        if text.strip() and text.replace("\t", " ").isprintable():
            found.append(text)
    return found


def _is_object(line: str) -> bool:
    try:
        return line.lstrip()[:1] == "{" and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _is_pairs(line: str, delimiter: str | None, assign: str) -> bool:
    parts = [part.strip() for part in line.split(delimiter)]
    matches = [_PAIR.fullmatch(part) for part in parts if part]
    return bool(matches) and all(match is not None and match[2] == assign for match in matches)


_LOOKS: Final[tuple[Callable[[bytes], Guess | None], ...]] = (
    sml, p1, nmea, pms5003, sds011, json_lines, pairs, csv, scalars,
)  # fmt: skip
"""From what cannot be mistaken to what could be something else."""


# ---- Modbus, which answers only


def modbus_question(unit: int) -> bytes:
    """Read one holding register, number 0, of a unit (Modbus over serial line V1.02, section 2.5): changes nothing."""
    body = bytes((unit, 3, 0, 0, 0, 1))
    return body + check_named("crc-16/modbus").compute(body).to_bytes(2, "little")


def modbus_answers(data: bytes, unit: int) -> bool:
    """Whether data hold the unit's answer: the register's value, or that it has no such register."""
    crc = check_named("crc-16/modbus").compute
    for function, size in ((3, 7), (0x83, 5)):
        for match in re.finditer(re.escape(bytes((unit, function))), data):
            frame = data[match.start() : match.start() + size]
            if len(frame) == size and crc(frame[:-2]) == int.from_bytes(frame[-2:], "little"):
                return True
    return False


def modbus(units: list[int]) -> Guess:
    """The configuration for units that answered: a first register each, to be replaced by those of their manuals."""
    register = {"name": "register_0", "address": 0, "type": "u16"}
    tables = [{"name": f"unit_{unit}", "address": unit, "register": [register]} for unit in units]
    return Guess(f"Modbus RTU, unit {', '.join(map(str, units))}", "modbus", len(units), {"unit": tables}, "bus")
