"""Bytes of GPIO edges: no noise raises, none is kept, and how they are cut does not matter."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent.driver import Fault, Sample
from agent.driver_gpio import EdgeParser
from agent.edges import EVENT, FALLING, RISING, PulseMeter
from drivers.gpio import Gpio

CONFIG: dict[str, Any] = {
    "name": "io",
    "driver": "gpio",
    "chip": "x",
    "inputs": {"door": {"line": 1}},
    "counters": {"water": {"line": 2, "show": ["total", "rate", "frequency", "lost"]}},
}


def parser() -> EdgeParser:
    return Gpio(Gpio.Config(**CONFIG), None).parser()  # type: ignore[arg-type]  # a constructor only assigns


U32 = st.integers(0, 2**32 - 1)
events = st.builds(
    EVENT.pack, st.integers(0, 2**64 - 1), st.integers(0, 3), st.integers(0, 3), U32, st.integers(0, 5) | U32
)
bytes_of_events = st.lists(events | st.binary(max_size=60), max_size=20).map(b"".join)


def told(items: Any) -> list[object]:
    return [(item.fields, item.mono_ns) if isinstance(item, Sample) else (item.kind, item.detail) for item in items]


@given(bytes_of_events, st.lists(st.integers(0, 1300), max_size=20))
def test_any_bytes_however_cut_give_the_same(data: bytes, cuts: list[int]) -> None:
    whole, cut = parser(), parser()
    places = sorted({0, len(data), *(place for place in cuts if place < len(data))})
    expected = told([*whole.feed(data), *whole.end()])
    pieces = [item for a, b in pairwise(places) for item in cut.feed(data[a:b])]
    assert told([*pieces, *cut.end()]) == expected
    assert not told(cut.end())[:-1], "nothing is left but the totals"


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9)), max_size=60))
def test_the_total_is_what_the_kernel_has_numbered_whatever_was_dropped(steps: list[tuple[bool, int]]) -> None:
    """Each step is some edges, of which the kernel keeps the last one or all."""
    it = parser()
    number, at, kept = 0, 0, 0
    for all_kept, edges in steps:
        for _ in range(edges):
            number += 1
            at += 1_000_000
            if all_kept or _ == edges - 1:
                kept += 1
                list(it.feed(EVENT.pack(at, RISING, 2, number, number)))
    totals = it.totals(at)
    assert totals["water"] == number
    assert totals["water_lost"] == number - kept


@given(st.lists(st.integers(1, 10**10), min_size=1, max_size=50), st.integers(1, 10**12))
def test_a_rate_is_never_negative_and_never_more_than_the_pulses_allow(gaps: list[int], later: int) -> None:
    meter, now = PulseMeter(), 0
    for gap in gaps:
        now += gap
        meter.add(now, 0)
        assert 0 <= meter.rate(now, 10**11) <= 1e9 / min(gaps) * 1.001
    assert meter.rate(now + later, 10**13) <= 1e9 / later


def test_falling_edges_and_line_numbers_go_round_at_32_bits() -> None:
    it = parser()
    list(it.feed(EVENT.pack(1, RISING, 1, 1, 2**32 - 1)))
    items = list(it.feed(EVENT.pack(2, FALLING, 1, 2, 0)))
    assert told(items) == [({"door": False}, 2)]
    (fault,) = it.feed(EVENT.pack(3, 7, 1, 3, 1))
    assert isinstance(fault, Fault)
    assert fault.detail == "event 7 of line 1"
