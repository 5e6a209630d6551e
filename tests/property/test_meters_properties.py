"""Parsers of meters and receivers under any bytes: no exception, the same however cut, bounded, in linear time.

What hypothesis begins with are the golden cases, spliced and garbled: random bytes alone never get past a checksum.
``METER_EXAMPLES=1000000`` makes the long run of it.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import re
import time
from collections.abc import Callable
from functools import reduce
from operator import xor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.codec import encode_fields
from agent.driver import Fault, Parser, Sample
from agent.dsmr import crc16 as crc_arc
from agent.model import FAULT_KINDS
from agent.sml import BEGIN, ESCAPE, x25
from agent.testing import FakeContext
from drivers.d0 import D0Config, D0Parser
from drivers.nmea import Nmea, NmeaConfig
from drivers.p1 import P1Config, P1Parser
from drivers.sml import SmlConfig, SmlParser

CASES = Path(__file__).parents[1] / "cases"
EXAMPLES = int(os.environ.get("METER_EXAMPLES", "150"))
PORT = {"name": "m", "port": "/dev/x"}


def p1() -> Parser:
    return P1Parser(P1Config(driver="p1", **PORT))


def p1_sealed(body: bytes) -> bytes:
    """A telegram with any body and a CRC that fits: what only a checksum keeps from the code behind it."""
    text = b"/X\r\n" + body.replace(b"!", b"") + b"\r\n!"
    return text + b"%04X\r\n" % crc_arc(text)


def sml() -> Parser:
    return SmlParser(SmlConfig(driver="sml", **PORT))


def sml_sealed(body: bytes) -> bytes:
    filling = -len(body) % 4
    framed = BEGIN + body.replace(ESCAPE, ESCAPE * 2) + bytes(filling) + ESCAPE + bytes([0x1A, filling])
    return framed + x25(framed).to_bytes(2, "little")


def nmea() -> Parser:
    return Nmea(NmeaConfig(driver="nmea", **PORT), FakeContext()).parser()


def nmea_sealed(body: bytes) -> bytes:
    lines = [line.partition(b"*")[0].lstrip(b"$").replace(b"$", b"") for line in body.split(b"\n")]
    return b"".join(b"$%s*%02X\r\n" % (line, reduce(xor, line, 0)) for line in lines)


def d0() -> Parser:
    return D0Parser(D0Config(driver="d0", **PORT))


def d0_sealed(body: bytes) -> bytes:
    text = body.translate(None, b"\x02\x03!") + b"!\r\n\x03"
    return b"/ISk5X\r\n\x02" + text + bytes([reduce(xor, text)])


METERS: dict[str, tuple[Callable[[], Parser], Callable[[bytes], bytes]]] = {
    "d0": (d0, d0_sealed),
    "nmea": (nmea, nmea_sealed),
    "p1": (p1, p1_sealed),
    "sml": (sml, sml_sealed),
}
meters = pytest.mark.parametrize("meter", METERS)


def samples(meter: str) -> list[bytes]:
    found = [path.read_bytes()[:3000] for path in sorted((CASES / meter).glob("*/input.txt"))]
    for path in sorted((CASES / meter).glob("*/input.hex")):
        text = " ".join(line.partition("#")[0] for line in path.read_text().splitlines())
        found.append(bytes.fromhex(text)[:3000])
    return found


def streams(meter: str) -> st.SearchStrategy[bytes]:
    """Pieces of real telegrams, garbled here and there, and bytes of any kind between."""
    seal = METERS[meter][1]
    # What telegrams are made of: lines of text, entries of a list.
    words = sorted({word for sample in samples(meter) for word in re.split(rb"\n|(?=[\x72-\x77]\x07)", sample)})

    def garble(given: tuple[bytes, int, int, int, int]) -> bytes:
        sample, begin, end, at, byte = given
        piece = bytearray(sample[begin % len(sample) : len(sample) - end % len(sample)])
        if piece and byte < 256:
            piece[at % len(piece)] = byte
        return bytes(piece)

    piece = st.tuples(
        st.sampled_from(samples(meter)),
        st.just(0) | st.integers(0, 3000),
        st.just(0) | st.integers(0, 3000),
        st.integers(0, 3000),
        st.integers(0, 400),
    ).map(garble)
    word = st.tuples(st.sampled_from(words), st.integers(0, 99), st.binary(max_size=2)).map(
        lambda given: given[0][: given[1]] + given[2] + given[0][given[1] :] if given[2] else given[0]
    )
    body = st.lists(word | st.binary(max_size=12), max_size=6).map(b"\n".join if meter != "sml" else b"".join)
    return st.lists(piece | body.map(seal) | st.binary(max_size=40), max_size=4).map(b"".join)


@meters
@settings(deadline=None, max_examples=EXAMPLES)
@given(data=st.data(), seed=st.integers(0, 2**16))
def test_any_bytes_give_the_same_items_however_they_are_cut(meter: str, data: st.DataObject, seed: int) -> None:
    new = METERS[meter][0]
    stream = data.draw(streams(meter))
    whole = new()
    items = [*whole.feed(stream), *whole.end()]
    pieces = new()
    rng = random.Random(seed)
    again: list[Sample | Fault] = []
    at = 0
    while at < len(stream):
        step = rng.choice((1, 2, 7, 500))
        again += pieces.feed(stream[at : at + step])
        at += step
    assert repr([*again, *pieces.end()]) == repr(items)
    assert pickle.dumps(pieces) == pickle.dumps(whole), "end() forgets the stream"
    for item in items:
        if isinstance(item, Fault):
            assert item.kind in FAULT_KINDS
            assert item.detail.isprintable()
            assert len(item.detail) < 400
            assert len(item.raw) <= 64
        else:
            assert item.fields
            assert json.loads(encode_fields(item.fields)) == item.fields


@pytest.mark.parametrize(
    "meter", [name for name in METERS if name != "nmea"]
)  # there several sentences are one reading
def test_every_golden_telegram_is_still_read_after_any_other_broke_off(meter: str) -> None:
    new = METERS[meter][0]
    for first in samples(meter):
        for second in samples(meter):
            if meter == "d0" and (b"\x02" in first) != (b"\x02" in second):
                continue  # no meter sends now in blocks and now without
            fed = new()
            fed.feed(first[: len(first) // 2])
            alone = [item for item in new().feed(second) if isinstance(item, Sample)]
            # At the seam something whole may come to be, where no checksum tells.
            assert [item for item in fed.feed(second) if isinstance(item, Sample)][-len(alone) :] == alone or not alone


HOSTILE = [
    b"/",
    b"!",
    b"\n",
    b"(",
    b")",
    b"1",
    b"/X\r\n",
    b"/X\r\n!",
    b"1.8.0(1*kWh)",
    b"()",
    b"\x1b",
    b"\x02",
    b"$",
    b"\0",
]


@meters
@pytest.mark.parametrize("unit", HOSTILE, ids=repr)
def test_endless_noise_needs_bounded_memory_and_linear_time(meter: str, unit: bytes) -> None:
    new, seal = METERS[meter]

    def cost(length: int) -> float:
        noise = unit * (length // len(unit))
        begins = samples(meter)[0][:40]
        best = float("inf")
        for _ in range(3):
            fed = new()
            begin = time.process_time()
            fed.feed(noise)
            fed.feed(begins + noise)
            fed.feed(seal(noise[:3000]))
            best = min(best, time.process_time() - begin)
            assert len(pickle.dumps(fed)) < 96 * 1024
        return best

    assert cost(64_000) < 2.5 * 4 * cost(16_000) + 0.002  # quadratic would be 16 times
