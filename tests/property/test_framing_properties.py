"""LineFramer against a reference that reads byte by byte, for any bytes and any way of cutting them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.framing import ENDINGS, LineFramer
from agent.model import Fault

endings = st.sampled_from([*ENDINGS.values(), b"\r\n\r", b"aab"])
streams = st.lists(
    st.sampled_from([b"a", b"b", b"\r", b"\n", b"\r\n", b"aab", b"x" * 7, b"\xff\x00"]), max_size=40
).map(b"".join)


def cut(data: bytes, places: list[int]) -> Iterator[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return (data[a:b] for a, b in pairwise(edges))


def run(ending: bytes | None, longest: int, pieces: Iterator[bytes]) -> list[bytes | Fault]:
    framer = LineFramer(ending, longest)
    items = [item for piece in pieces for item in framer.feed(piece)]
    return [*items, *framer.end()]


def reference(data: bytes, ending: bytes | None, longest: int) -> list[bytes | Fault]:
    """What the docstring promises, said in the simplest way: search the next ending, look how long the line is."""
    items: list[bytes | Fault] = []
    while True:
        if ending is None:
            ends = [(data.find(mark), len(mark)) for mark in (b"\r\n", b"\n", b"\r") if mark in data]
            place, width = min(ends, key=lambda end: (end[0], -end[1])) if ends else (-1, 1)
        else:
            place, width = data.find(ending), len(ending)
        line = data if place < 0 else data[:place]
        if len(line) > longest and (place >= 0 or len(line) >= longest + width):
            items.append(Fault("too_long", f"a line of more than {longest} bytes", line[: min(64, longest)]))
        elif place >= 0:
            items.append(line)
        elif line:
            items.append(Fault("cut", "the stream ended within a line", line[:64]))
        if place < 0:
            return items
        data = data[place + width :]


@settings(deadline=None)
@given(streams, endings, st.integers(1, 12), st.lists(st.integers(0, 400), max_size=12))
def test_any_chopping_gives_what_the_reference_gives(
    data: bytes, ending: bytes | None, longest: int, places: list[int]
) -> None:
    expected = reference(data, ending, longest)
    assert run(ending, longest, iter([data])) == expected
    assert run(ending, longest, (data[i : i + 1] for i in range(len(data)))) == expected
    assert run(ending, longest, cut(data, places)) == expected


@settings(deadline=None)
@given(streams, endings, st.integers(1, 12))
def test_it_never_keeps_more_than_a_line_and_an_ending(data: bytes, ending: bytes | None, longest: int) -> None:
    framer = LineFramer(ending, longest)
    for i in range(len(data)):
        framer.feed(data[i : i + 1])
        assert len(framer._rest) < longest + len(ending or b"\n")


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=list(ENDINGS))
@pytest.mark.parametrize("shape", [b"x", b"x" * 40 + b"\r\n"], ids=["endless", "lines"])
def test_twice_the_bytes_take_twice_the_time(ending: bytes | None, shape: bytes) -> None:
    """In small pieces, which is where joining and splitting anew turns quadratic. CPU time; the best of five."""

    def cost(size: int) -> float:
        data = (shape * (size // len(shape) + 1))[:size]
        best = float("inf")
        for _ in range(5):
            framer = LineFramer(ending, longest=1 << 20)
            begin = time.process_time()
            for at in range(0, size, 16):
                framer.feed(data[at : at + 16])
            best = min(best, time.process_time() - begin)
        return best

    assert cost(1 << 19) < 2.0 * 4 * cost(1 << 17)  # four times the bytes: linear is 4, quadratic 16
