"""The lines driver under arbitrary bytes: never an exception, the same however cut, nothing that JSON cannot say."""

from __future__ import annotations

import json
import math
import random
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.codec import encode_fields
from agent.driver import Fault, Sample
from agent.model import FAULT_KINDS
from drivers.lines import LineParser, LinesConfig

CONFIGS: dict[str, dict[str, Any]] = {
    "json": {"format": "json"},
    "json-declared": {
        "format": "json",
        "channels": {"a": {"scale": 0.1, "low": -5, "high": 5}, "b": {"type": "int"}, "c": {"type": "text"}},
        "partial": True,
    },
    "csv": {"format": "csv", "columns": ["a", "b", ""], "channels": {"b": {"type": "text"}}, "ignore": ["#"]},
    "csv-latin1": {"format": "csv", "columns": ["a"], "encoding": "latin-1", "ending": "crlf"},
    "kv": {"format": "kv", "channels": {"a": {"type": "bool"}}, "partial": True},
    "regex": {"format": "regex", "pattern": r"(?P<a>[-+0-9.]+)(?:,(?P<b>\w+))?", "channels": {"b": {"type": "text"}}},
    "scalar": {"format": "scalar", "ending": "lf", "skip_first": True},
}
formats = pytest.mark.parametrize("options", CONFIGS.values(), ids=list(CONFIGS))

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["nan", "1", "-1e9"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(st.sampled_from(["a", "b", "c", "a b", "a_b", "°"]), values, max_size=4)
likely = st.one_of(
    objects.map(lambda value: json.dumps(value).encode()),
    objects.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")),
    st.lists(st.floats().map(str) | st.integers().map(str) | st.sampled_from(['"x"', "", "#"]), max_size=4).map(
        lambda cells: ",".join(cells).encode()
    ),
    st.lists(st.sampled_from([b"a=1", b"b=nan", b"a", b"=", b"c=x y", b"b=1_0"]), max_size=4).map(b" ".join),
    st.binary(max_size=20),
    st.sampled_from([b'{"a":1,"a":2}', b'{"a":NaN}', b"[" * 3000, b'{"a":' * 300, b"\\" * 9, b'"' * 9, b"1" * 5000]),
)
streams = st.lists(st.tuples(likely, st.sampled_from([b"\n", b"\r\n", b"\r", b""])), max_size=8).map(
    lambda parts: b"".join(line + end for line, end in parts)
)


def parser(options: dict[str, Any], **more: Any) -> LineParser:
    return LineParser(LinesConfig(**{"name": "w", "driver": "lines", "port": "/dev/x"} | options | more))


@formats
@settings(deadline=None)
@given(data=streams, seed=st.integers(0, 2**16))
def test_any_bytes_give_the_same_samples_and_faults_however_they_are_cut(
    options: dict[str, Any], data: bytes, seed: int
) -> None:
    whole = parser(options)
    items = [*whole.feed(data), *whole.end()]
    pieces = parser(options)
    rng = random.Random(seed)
    again: list[Sample | Fault] = []
    at = 0
    while at < len(data):
        step = rng.choice((1, 2, 7, 500))
        again += pieces.feed(data[at : at + step])
        at += step
    assert repr([*again, *pieces.end()]) == repr(items)
    for item in items:
        if isinstance(item, Fault):
            assert item.kind in FAULT_KINDS
            assert item.detail.isprintable()
            assert len(item.detail) < 400
        else:
            assert json.loads(encode_fields(item.fields)) == item.fields
            assert item.fields
            assert not any(isinstance(value, float) and not math.isfinite(value) for value in item.fields.values())


@settings(deadline=None)
@given(objects)
def test_what_json_says_is_what_is_published_or_it_is_a_fault(value: dict[str, Any]) -> None:
    """For flat objects of plain values: equal, in order, and of the same types."""
    line = json.dumps(value).encode() + b"\n"
    (item,) = parser({"format": "json"}).feed(line)
    plain = value and all(v is None or type(v) in (bool, int, float) for v in value.values())
    in_range = all(type(v) is not int or -(2**63) <= v < 2**64 for v in value.values())
    if plain and in_range and _finite(value) and not {"a b", "a_b"} <= set(value):
        assert isinstance(item, Sample)
        assert repr(item.fields) == repr(value)
    elif plain and not _finite(value):
        assert isinstance(item, Fault)
        assert item.kind == "number"


def _finite(value: Any) -> bool:
    return all(not isinstance(v, float) or math.isfinite(v) for v in value.values())


HOSTILE = {  # before, what is repeated, after
    "digits": (b"", b"1", b""),
    "digits of a number as text": (b'{"a":"', b"1", b'x"}'),
    "quotes": (b"", b'"', b""),
    "escaped quotes without an end": (b'{"a":nan,"', b'\\"', b""),
    "backslashes": (b'{"a":nan,"', b"\\", b""),
    "not numbers": (b'{"a":', b"-nan ", b"}"),
    "brackets": (b'{"a":', b"[", b""),
    "objects": (b"", b'{"a":', b""),
    "commas": (b"", b",", b""),
    "pairs": (b"", b"a=1 ", b""),
    "equal keys": (b'{"a":nan', b',"a":1', b"}"),
    "many keys": (b'{"a":nan', b',"%d":1', b"}"),
    "minus signs": (b'{"a":', b"-", b"}"),
    "spaces": (b"", b" ", b"x"),
}


@formats
@pytest.mark.parametrize("shape", HOSTILE.values(), ids=list(HOSTILE))
def test_four_times_as_long_a_line_takes_about_four_times_as_long(
    options: dict[str, Any], shape: tuple[bytes, bytes, bytes]
) -> None:
    before, unit, after = shape

    def cost(length: int) -> float:
        times = length // len(unit)
        middle = b"".join(unit % n for n in range(times)) if b"%" in unit else unit * times
        best = float("inf")
        for _ in range(4):
            fed = parser(options, longest="512KiB", skip_first=False)
            begin = time.process_time()
            fed.feed(before + middle + after + b"\n")
            best = min(best, time.process_time() - begin)
        return best

    assert cost(64_000) < 2.5 * 4 * cost(16_000) + 0.002  # quadratic would be 16 times


@settings(deadline=None, max_examples=30)
@given(st.lists(st.one_of(streams, st.binary(max_size=30)), max_size=5))
def test_no_datagram_has_a_say_in_the_next(datagrams: list[bytes]) -> None:
    from drivers.socket import Socket

    config = Socket.Config(name="w", driver="socket", listen="udp://:1", lines={"format": "csv", "columns": ["a", "b"]})
    alone, together = [], Socket(config, None).parser()  # type: ignore[arg-type]  # a constructor only assigns
    for datagram in datagrams:
        one = Socket(config, None).parser()  # type: ignore[arg-type]
        alone.append([*one.feed(datagram), *one.end()])
    assert [[*together.feed(datagram)] for datagram in datagrams] == alone
