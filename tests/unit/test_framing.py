from __future__ import annotations

import pytest

from agent.framing import ENDINGS, LineFramer
from agent.model import Fault


def test_lines_come_out_as_they_end_and_the_rest_waits() -> None:
    framer = LineFramer(b"\n")
    assert framer.feed(b"a\nb\nhal") == [b"a", b"b"]
    assert framer.feed(b"f\n\n") == [b"half", b""]
    assert framer.end() == []


def test_any_takes_mixed_endings_and_counts_cr_lf_once_even_when_cut_between_the_two() -> None:
    framer = LineFramer(ENDINGS["any"])
    assert framer.feed(b"a\r\nb\nc\r") == [b"a", b"b", b"c"]
    assert framer.feed(b"\nd\r") == [b"d"]
    assert framer.feed(b"\r") == [b""]


def test_crlf_is_not_fooled_by_a_lone_half() -> None:
    framer = LineFramer(ENDINGS["crlf"])
    assert framer.feed(b"a\rb\nc\r") == []
    assert framer.feed(b"\n") == [b"a\rb\nc"]


def test_an_endless_line_is_one_fault_at_once_and_the_line_after_its_end_is_read() -> None:
    framer = LineFramer(b"\n", longest=8)
    too_long = Fault("too_long", "a line of more than 8 bytes", b"x" * 8)
    assert framer.feed(b"x" * 9) == [too_long], "told while it still goes on: it may never end"
    assert framer.feed(b"x" * 100_000) == []
    assert framer.feed(b"tail\n21.5\n") == [b"21.5"]
    assert framer.feed(b"x" * 9 + b"\n12345678\n") == [too_long, b"12345678"]


def test_the_end_of_the_stream_within_a_line_is_a_cut_and_the_framer_starts_anew() -> None:
    framer = LineFramer(b"\n", longest=100)
    framer.feed(b"a\n" + b"y" * 80)
    assert framer.end() == [Fault("cut", "the stream ended within a line", b"y" * 64)]
    assert framer.feed(b"b\n") == [b"b"]
    framer.feed(b"z" * 200)
    assert framer.end() == [], "it was already told that the line is too long"
    assert framer.feed(b"c\n") == [b"c"]


def test_a_useless_ending_or_length_is_refused() -> None:
    with pytest.raises(ValueError, match="ending"):
        LineFramer(b"")
    with pytest.raises(ValueError, match="longest"):
        LineFramer(b"\n", 0)
