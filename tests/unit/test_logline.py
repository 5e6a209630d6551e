"""Log lines: one form, quoted where a reader or a script would stumble; repeats thinned out."""

from __future__ import annotations

import pytest

from agent.logline import Repeats, line


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "device.lost"),
        ({"device": "weather"}, "device.lost device=weather"),
        ({"reason": "hung up"}, 'device.lost reason="hung up"'),
        ({"reason": 'it said "no"'}, "device.lost reason=\"it said 'no'\""),
        ({"raw": b'{"a":"b\\c"}'}, 'device.lost raw="b\'{\\"a\\":\\"b\\\\\\\\c\\"}\'"'),
        ({"reason": "a\nb"}, 'device.lost reason="a\\nb"'),
        ({"reason": "\x1b[2J\r\x9b\u202e"}, r'device.lost reason="\u001b[2J\u000d\u009b\u202e"'),
        ({"reason": ""}, 'device.lost reason=""'),
        ({"count": None, "n": 3}, "device.lost n=3"),
        ({"retry_in_s": 0.123456789}, "device.lost retry_in_s=0.123457"),
    ],
)
def test_line(fields: dict[str, object], text: str) -> None:
    assert line("device.lost", **fields) == text


def test_repeats_speak_at_powers_of_two() -> None:
    seen = Repeats()
    assert [n for n in range(1, 101) if seen("timeout")] == [1, 2, 4, 8, 16, 32, 64]
    assert seen.over("timeout") == 100
    assert seen("timeout") == 1


def test_repeats_are_counted_by_key_and_bounded() -> None:
    seen = Repeats(limit=2)
    assert seen("a") == seen("b") == 1
    assert seen("c") == 1  # "a", the oldest, is forgotten
    assert seen.over("a") == 0
    assert seen.over("b") == 1
