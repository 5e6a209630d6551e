"""Modbus from random bytes, in memory: nothing raises, everything is bounded, and cuts change nothing."""

from __future__ import annotations

import os
import struct
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.driver import Fault, Sample
from agent.driver_modbus import ModbusParser
from agent.modbus import Register, Unit, plan, unit_plans
from agent.modbus_bus import Answer, Bus, Question, Silence
from agent.modbus_pdu import RtuExchange
from drivers.modbus import ModbusConfig

EXAMPLES = int(os.environ.get("OUTSTATION_FUZZ", "40"))
"""More for a long run, as `OUTSTATION_FUZZ=1000000`."""

UNITS: list[dict[str, Any]] = [
    {
        "name": "a",
        "address": 1,
        "register": [
            {"name": "text", "address": 0, "type": "string", "length": 2},
            {"name": "single", "address": 2, "type": "f32", "order": "CDAB", "high": 1e6},
            {"name": "coil", "table": "coil", "address": 7},
        ],
    },
    {"name": "b", "address": 2, "like": "a"},
]
# What answers are made of: random bytes alone would never get past an address and a checksum.
PIECES = [
    bytes.fromhex(text)
    for text in ("010101", "01030841420000", "0201", "0203", "8302", "0000000501", "0000", "01", "02", "5188", "c0f1")
] + [bytes.fromhex("010101015188"), bytes.fromhex("01030841420000466000c0") + b"\xdd\xdd", bytes.fromhex("018302c0f1")]
WIRE = st.lists(st.sampled_from(PIECES) | st.binary(max_size=12), max_size=30).map(b"".join)


def parser(port: str) -> ModbusParser:
    config = ModbusConfig(name="bus", driver="modbus", port=port, unit=UNITS)
    return ModbusParser(config.unit, tcp=config.tcp)


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=WIRE, cuts=st.lists(st.integers(0, 300), max_size=8), port=st.sampled_from(["/dev/null", "tcp://host"]))
def test_the_same_bytes_give_the_same_however_they_are_cut(data: bytes, cuts: list[int], port: str) -> None:
    whole, chopped = parser(port), parser(port)
    expected = [*whole.feed(data), *whole.end()]
    edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    pieces = [data[a:b] for a, b in pairwise(edges)]
    found = [item for piece in pieces for item in chopped.feed(piece)] + list(chopped.end())
    assert found == expected
    assert all(isinstance(item, Sample) or len(item.raw) <= 64 for item in found)


@settings(max_examples=EXAMPLES, deadline=None)
@given(pieces=st.lists(WIRE, max_size=10))
def test_what_is_kept_is_bounded(pieces: list[bytes]) -> None:
    exchange = RtuExchange(Question(1, "holding", 0, 4))
    for piece in pieces:
        if exchange.feed(piece) is not None:
            break
        assert len(exchange.rest) <= 260
        assert len(exchange.noise) <= 64


def test_twice_the_noise_takes_twice_the_work() -> None:
    """Counted in calls, not in seconds: every byte is a header of an answer whose checksum is wrong."""
    counts = []
    for length in (2000, 4000):
        exchange = RtuExchange(Question(1, "holding", 0, 1))
        looks = 0
        look = exchange._pdu

        def counted(look: Any = look) -> Any:
            nonlocal looks
            looks += 1
            return look()

        exchange._pdu = counted  # type: ignore[method-assign]
        exchange.feed(b"\x01\x03\x02\x00" * (length // 4))
        counts.append(looks)
    assert counts[1] <= 2.1 * counts[0]


REGISTERS = st.builds(
    lambda n, table, address, kind: Register(
        name=f"r{n}", table=table, address=address, type=None if table in ("coil", "discrete") else kind
    ),
    st.integers(0, 10**6),
    st.sampled_from(["holding", "input", "coil", "discrete"]),
    st.integers(0, 3000),
    st.sampled_from(["u16", "i32", "f64"]),
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(REGISTERS, max_size=60), st.integers(0, 124), st.integers(4, 125))
def test_a_plan_reads_every_register_once_and_keeps_to_the_limits(
    registers: list[Register], gap: int, at_once: int
) -> None:
    blocks = plan(registers, gap=gap, at_once=at_once)
    assert sorted(map(id, registers)) == sorted(id(each) for block in blocks for each in block.registers)
    for block in blocks:
        assert block.count <= (min(2000, 16 * at_once) if block.table in ("coil", "discrete") else at_once)
        for each in block.registers:
            assert block.address <= each.address
            assert each.address + each.count <= block.address + block.count


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.sampled_from(["u16", "i16", "u32", "i32", "u64", "i64"]), st.integers(-(2**63), 2**64 - 1))
def test_a_whole_number_is_written_as_it_is_or_refused(kind: Any, value: int) -> None:
    one = Register(name="r", address=0, type=kind)
    try:
        words = one.words(value)
    except ValueError:
        low, high = one.limits()
        assert low is not None
        assert high is not None
        assert not low <= value <= high or abs(value) > 2**53
    else:
        assert one.value(words) == value


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_float_comes_back(value: float) -> None:
    one = Register(name="r", address=0, type="f32", order="CDAB")
    found = one.value(one.words(value))
    assert struct.pack(">f", found) == struct.pack(">f", value)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.lists(st.sampled_from(["ok", "silent"]), min_size=3, max_size=3),
    st.integers(1, 40),
    st.floats(0.05, 3.0),
)
def test_however_many_are_dead_they_cost_one_time_out_an_interval(
    kinds: list[str], rounds: int, timeout: float
) -> None:
    """Rounds of one second; a live unit answers at once. What is dead is known from the second round on."""
    one = {"register": [{"name": "x", "address": 0}]}
    units = [Unit(name=f"u{n}", address=n + 1, **one) for n in range(3)]
    bus = Bus(unit_plans(units), interval=1.0, timeout=timeout)
    now, seen = 0.0, dict.fromkeys(range(3), 0)
    for number in range(rounds):
        now = max(now, float(number))
        bus.tick(float(number))  # on the grid, also while the last question is still open
        silent = 0
        while (question := bus.next(now)) is not None:
            index = question.unit - 1
            if kinds[index] == "ok":
                seen[index] += 1
                items = bus.settle(Answer((1,)), now)
                assert not any(isinstance(item, Fault) for item in items)
                continue
            silent += 1
            began, now = now, now + timeout
            bus.settle(Silence(), now)
            if number >= 1 and silent > 1:
                assert began + timeout <= number + 1.0, "a second time-out, and it did not fit"
    assert all(count == rounds for index, count in seen.items() if kinds[index] == "ok")
