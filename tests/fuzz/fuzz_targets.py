"""The parsers to fuzz: every driver with golden cases, and what its frames are made of."""

from __future__ import annotations

import importlib
import pickle
import tomllib
from collections.abc import Callable
from functools import partial, reduce
from operator import xor
from pathlib import Path
from typing import Any, Final, NamedTuple

from fuzz_loop import Target
from fuzz_mutate import LONGEST

from agent.driver import Driver, Parser
from agent.edges import EVENT
from agent.framing_check import CRCS, crc
from agent.testing.cases import new_parser, wire_bytes

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests" / "cases"

arc, modbus, x25 = (crc(CRCS[name]) for name in ("crc-16/arc", "crc-16/modbus", "crc-16/ibm-sdlc"))


def p1(body: bytes) -> bytes:
    text = b"/" + body.replace(b"!", b"").lstrip(b"/") + b"\r\n!"
    return text + b"%04X\r\n" % arc(text)


def sml(body: bytes) -> bytes:
    begin, escape = b"\x1b\x1b\x1b\x1b\x01\x01\x01\x01", b"\x1b" * 4
    body = body.removeprefix(begin).partition(escape + b"\x1a")[0]
    filling = -len(body) % 4
    framed = begin + body.replace(escape, escape * 2) + bytes(filling) + escape + bytes([0x1A, filling])
    return framed + x25(framed).to_bytes(2, "little")


def nmea(body: bytes) -> bytes:
    lines = [line.partition(b"*")[0].strip(b"$\r") for line in body.split(b"\n")]
    return b"".join(b"$%s*%02X\r\n" % (line, reduce(xor, line, 0)) for line in lines)


def d0(body: bytes) -> bytes:
    text = body.translate(None, b"\x02\x03!") + b"!\r\n\x03"
    return b"/ISk5X\r\n\x02" + text + bytes([reduce(xor, text)])


def rtu(body: bytes) -> bytes:
    return body[:-2] + modbus(body[:-2]).to_bytes(2, "little")


def sds011(body: bytes) -> bytes:
    data = body[2:8].ljust(6, b"\0")
    return b"\xaa\xc0" + data + bytes([sum(data) & 0xFF, 0xAB])


def pms5003(body: bytes) -> bytes:
    frame = b"\x42\x4d" + body[2:30].ljust(28, b"\0")
    return frame + sum(frame).to_bytes(2, "big")


def mhz19(body: bytes) -> bytes:
    frame = b"\xff\x86" + body[2:8].ljust(6, b"\0")
    return frame + bytes([-sum(frame[1:]) & 0xFF])


def gpio(body: bytes) -> bytes:
    """Whole events of the lines that the cases have."""
    found = bytearray(body[: len(body) - len(body) % EVENT.size])
    for at in range(0, len(found), EVENT.size):
        found[at + 8 : at + 16] = bytes([1 + found[at + 8] % 2, 0, 0, 0, found[at + 12] % 6, 0, 0, 0])
    return bytes(found)


class Shape(NamedTuple):
    """What a driver's bytes are made of. own: its own words for faults; see ``Target``."""

    split: str
    seal: Callable[[bytes], bytes] | None = None
    own: tuple[str, ...] = ()
    forgets: bool = True
    longest: int = LONGEST


LINES: Final = r"[\r\n,;=: {}\"]+"
TARGETS: Final[dict[str, Shape]] = {
    # Some seven sentences, a fix or two: the library takes 50 µs for each of them.
    "nmea": Shape(r"[\r\n,]+", nmea, longest=500),
    "p1": Shape(r"[\r\n()*]+", p1),
    "sml": Shape("(?=[\x71-\x7f\x01-\x09\x52-\x69])", sml),
    "d0": Shape(r"[\r\n()*]+", d0),
    # The round goes on where it was: which unit is asked next is no part of a stream.
    "modbus": Shape(r"(?=[\x01-\x04\x11])", rtu, ("noise", "exception", "overrun"), forgets=False),
    # Names of channels that came from the wire stay known: two may not share a topic, now or later.
    "lines": Shape(LINES, forgets=False),
    "tail": Shape(LINES, forgets=False),
    "socket": Shape(LINES, forgets=False),
    "exec": Shape(LINES, forgets=False),
    # Counters go on.
    "gpio": Shape(r"(?s)(.{48})", gpio, ("event", "lost_edges"), forgets=False),
    "frames": Shape(r"(?=[\x00\xaa\xb5\xc0\xdd])"),
    "sds011": Shape(r"(?=\xaa)", sds011),
    "pms5003": Shape(r"(?=\x42)", pms5003),
    "mhz19": Shape(r"(?=\xff)", mhz19),
    "onewire": Shape(r"[ \n]", own=("power_on",)),
}
"""By name of the driver: first those that read what others define, then the rest."""


def target(name: str) -> Target:
    """The driver's parser with all of its golden cases."""
    shape = TARGETS[name]
    made = driver(name)
    folders = sorted(path.parent for path in (CASES / name).glob("*/device.toml"))
    cases = [(folder.name, maker(made, folder), wire_bytes(folder)) for folder in folders]
    return Target(
        name,
        [case for case in cases if case[2]],  # an empty one has nothing to mutate
        shape.split,
        shape.seal,
        kinds=frozenset(shape.own),
        forgets=shape.forgets,
        longest=shape.longest,
    )


def driver(name: str) -> type[Driver]:
    """As pyproject.toml names it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, attribute = project["entry-points"]["outstation.drivers"][name].partition(":")
    found: type[Driver] = getattr(importlib.import_module(module), attribute)
    return found


def maker(made: type[Driver], folder: Path) -> Callable[[], Parser]:
    """New parsers of a case: of one that can be pickled, which spares reading its configuration each time."""
    first = new_parser(made, folder)
    try:
        frozen = pickle.dumps(first)
    except (pickle.PicklingError, AttributeError, TypeError):  # holds functions made at run time
        return partial(new_parser, made, folder)
    loads: Callable[[bytes], Any] = pickle.loads
    return partial(loads, frozen)
