"""The lines driver: what its configuration refuses, its channels, its wake-up. What it parses stands in tests/cases."""

from __future__ import annotations

from itertools import islice, permutations
from typing import Any

import pytest
from pydantic import ValidationError

from agent.driver import Channel, Fault, Sample
from agent.testing import FakeContext
from drivers.lines import LineParser, Lines, LinesConfig

CSV = {"format": "csv", "columns": ["t", "", "h"]}


def config(**options: Any) -> LinesConfig:
    return LinesConfig(**{"name": "w", "driver": "lines", "port": "/dev/ttyUSB0", "format": "json", **options})


@pytest.mark.parametrize(
    ("options", "where", "said"),
    [
        ({"format": "xml"}, "format", "'json', 'csv', 'kv', 'regex' or 'scalar'"),
        ({"format": "csv"}, "columns", 'format = "csv" needs it'),
        ({"format": "csv", "columns": ["", ""]}, "columns", "no column has a name"),
        ({"format": "csv", "columns": ["t", "h", "t"]}, "columns", "named twice: t"),
        ({"columns": ["t"]}, "columns", "only for format = csv"),
        ({"delimiter": ";"}, "delimiter", "only for format = csv or kv"),
        ({"assign": ":"}, "assign", "only for format = kv"),
        ({"format": "regex"}, "pattern", 'format = "regex" needs it'),
        ({"format": "regex", "pattern": "T=(?P<t>[0-9"}, "pattern", "not a regular expression"),
        ({"format": "regex", "pattern": "T=([0-9.]+)"}, "pattern", "no named group"),
        ({"format": "scalar", "channels": {"a": {}, "b": {}}}, "channels", "has one channel"),
        (CSV | {"channels": {"p": {}}}, "channels", "not on the wire: p; there are t, h"),
        ({"format": "regex", "pattern": "(?P<t>.)", "channels": {"h": {}}}, "channels", "not on the wire: h"),
        ({"channels": {"a b": {}, "a_b": {}}}, "channels", 'channels "a b" and "a_b" share the topic a_b'),
        ({"channels": {"a": {"name": "t"}, "t": {}}}, "channels", 'channels "a" and "t" share the topic t'),
        ({"channels": {"t": {"scale": 0}}}, "channels.t", "scale = 0"),
        ({"channels": {"t": {"type": "text", "low": 3}}}, "channels.t", "are for numbers"),
        ({"channels": {"t": {"low": 3, "high": 2}}}, "channels.t", "low = 3 is above high = 2"),
        ({"channels": {"t": {"low": float("nan")}}}, "channels.t.low", "finite"),
        ({"channels": {"t": {"units": "V"}}}, "channels.t.units", "Extra inputs"),
        ({"format": "csv", "columns": ["a b", "a_b"]}, "channels", "share the topic a_b"),
        ({"ignore": [""]}, "ignore.0", "at least 1 character"),
        ({"encoding": "latin-1", "ignore": ["€"]}, "ignore", "can't encode"),
        ({"encoding": "klingon"}, "encoding", "no encoding of text"),
        ({"encoding": "base64"}, "encoding", "no encoding of text"),
        ({"encoding": "utf-16"}, "encoding", "not an extension of ASCII"),
        ({"ending": "lfcr"}, "ending", "'lf', 'crlf', 'cr', 'any', 'slip' or 'cobs'"),
        ({"longest": 3}, "longest", "greater than or equal to 16"),
        ({"wakeup": r"\q"}, "wakeup", r"unknown escape \q"),
        ({"wakeup": r"\x1"}, "wakeup", r"unknown escape \x"),
        ({"stopbits": 3}, "stopbits", "1, 1.5 or 2"),
        ({"colums": ["t"]}, "colums", "Extra inputs"),
    ],
)
def test_what_can_never_work_is_refused_by_name(options: dict[str, Any], where: str, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        config(**options)
    (error,) = caught.value.errors()
    assert ".".join(map(str, error["loc"])) == where
    assert said in error["msg"]


def test_channels_are_known_as_far_as_the_configuration_tells() -> None:
    def channels(**options: Any) -> list[Channel]:
        return list(Lines(config(**options), FakeContext()).channels)

    temperature = {"unit": "°C", "low": -40, "high": 85, "device_class": "temperature", "name": "temperature"}
    assert channels(**CSV, channels={"t": temperature}) == [
        Channel("temperature", "°C", -40, 85, "temperature"),
        Channel("h"),
    ]
    assert channels(format="regex", pattern="(?P<a>.)(?P<b>.)?") == [Channel("a"), Channel("b")]
    assert channels(format="scalar") == [Channel("value")]
    assert channels(format="scalar", channels={"level": {"unit": "mm"}}) == [Channel("level", "mm")]
    assert channels(format="json", channels={"x": {}}) == [Channel("x")]
    assert channels(format="json") == []


def test_an_encoding_by_any_of_its_names_takes_the_fast_path() -> None:
    assert [config(encoding=name).encoding for name in ("UTF-8", "utf8", "U8")] == ["utf-8"] * 3


def test_it_wakes_the_device_after_each_opening() -> None:
    ctx = FakeContext("w")
    ctx.start(Lines, format="json", port="/dev/ttyUSB0", wakeup=r"\x05AT\\\r" + "\n")
    assert ctx.port.written == b"\x05AT\\\r\n"
    ctx.port.feed(b'{"t":1}\n{"t"')
    ctx.port.hang_up()
    assert ctx.losses
    assert ctx.faults == [Fault("cut", "the stream ended within a line", b'{"t"')]
    ctx.reopen()
    assert ctx.port.written == b"\x05AT\\\r\n"
    ctx.port.feed(b':2}\n{"t":3}\n')
    assert ctx.samples == [Sample({"t": 1}), Sample({"t": 3})]


def test_it_writes_nothing_unasked() -> None:
    ctx = FakeContext("w")
    ctx.start(Lines, format="scalar", port="/dev/ttyUSB0")
    assert ctx.port.written == b""


def test_names_from_noise_do_not_pile_up_and_do_not_lock_a_channel_out() -> None:
    parser = LineParser(config(channels={"t": {}}, longest="64KiB"))
    for n in range(100):
        parser.feed(b"{%s}\n" % b",".join(b'"noise %d":1' % k for k in range(n * 100, n * 100 + 100)))
        assert len(parser._rules._owners) < 1200
    parser.feed(b'{"noise 9999":1}\n')
    assert parser.feed(b'{"t":1}\n{"noise_1":2}\n') == [Sample({"t": 1}), Sample({"noise_1": 2})]


def test_layouts_of_the_same_names_do_not_pile_up() -> None:
    parser = LineParser(config())
    for order in islice(permutations("abcdef"), 500):
        parser.feed(("{" + ",".join(f'"{name}":1' for name in order) + "}\n").encode())
        assert len(parser._rules._plans) < 100


def test_a_line_is_bounded_in_fields_and_names() -> None:
    parser = LineParser(config(longest="64KiB", partial=True))
    many = ",".join(f'"k{n}":{n}' for n in range(300))
    (fault,) = parser.feed(b"{" + many.encode() + b"}\n")
    assert (fault.kind, fault.detail) == ("syntax", "more than 256 fields in one line")
    (fault,) = parser.feed(b'{"' + b"n" * 129 + b'":1}\n')
    assert fault.kind == "syntax"
    kv = LineParser(config(format="kv", longest="64KiB"))
    (fault,) = kv.feed(b"a=1 " * 300 + b"\n")
    assert fault.detail == "more than 256 fields in one line"
