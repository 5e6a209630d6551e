"""frames: types of fields, what goes to the device, and what is refused of a configuration."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agent.driver import Fault, Sample, Value
from agent.driver_frames import FrameFormat, FrameParser
from agent.fields_binary import BinaryField
from agent.framing_packets import cobs_encode
from agent.testing import FakeContext
from drivers.frames import Frames

DATA = bytes.fromhex("01 ff 80 00 12 34 56 78 9a bc de f0")


@pytest.mark.parametrize(
    ("settings", "value"),
    [
        ({"type": "u8", "at": 1}, 255),
        ({"type": "i8", "at": 1}, -1),
        ({"type": "u16", "at": 0}, 0x01FF),
        ({"type": "u16", "at": 0, "order": "little"}, 0xFF01),
        ({"type": "i16", "at": 2}, -32768),
        ({"type": "u24", "at": 4}, 0x123456),
        ({"type": "i24", "at": 2}, 0x800012 - (1 << 24)),
        ({"type": "u32", "at": 4, "order": "little"}, 0x78563412),
        ({"type": "i32", "at": -4}, 0x9ABCDEF0 - (1 << 32)),
        ({"type": "u64", "at": 4}, 0x123456789ABCDEF0),
        ({"type": "i64", "at": 4, "order": "little"}, 0xF0DEBC9A78563412 - (1 << 64)),
        ({"type": "bcd", "at": 4, "size": 3}, 123456),
        ({"type": "bcd", "at": 4, "size": 2, "order": "little"}, 3412),
        ({"type": "u8", "at": 2, "bit": 7}, True),
        ({"type": "u16", "at": 2, "bit": 0}, False),
        ({"type": "u16", "at": 4, "mask": 0x0FF0}, 0x23),
        ({"type": "i8", "at": 1, "mask": 0x80}, 1),
        ({"type": "u8", "at": 1, "missing": [254, 255]}, None),
        ({"type": "u8", "at": 1, "missing": [255], "scale": 2}, None),
    ],
)
def test_a_type(settings: dict[str, Any], value: Value) -> None:
    assert repr(BinaryField(**settings).read(DATA, "big")) == repr(value)


@pytest.mark.parametrize(
    ("raw", "value"), [(b"ab c \0x", "ab c"), (b"\xc2\xb0C\0\0\0", "°C"), (b"abcdef", "abcdef"), (bytes(6), "")]
)
def test_a_text_ends_at_a_zero(raw: bytes, value: str) -> None:
    assert BinaryField(type="text", at=0, size=6).read(raw, "big") == value


@given(st.floats(width=32, allow_nan=False))
def test_a_float_of_32_bits_is_the_shortest_number_that_is_the_same(value: float) -> None:
    field = BinaryField(type="f32", at=0)
    found = field.read(struct.pack("<f", value), "little")
    assert isinstance(found, float)
    assert struct.pack("<f", found) == struct.pack("<f", value)
    assert len(repr(found)) <= len(repr(value))


@pytest.mark.parametrize("value", [0.1, 21.3, -1.5e-7, 16777216.0, 3.4028235e38])
def test_a_float_of_32_bits_reads_as_it_was_written(value: float) -> None:
    assert BinaryField(type="f32", at=0).read(struct.pack(">f", value), "big") == value


@given(st.floats(allow_nan=False))
def test_a_float_of_64_bits(value: float) -> None:
    assert BinaryField(type="f64", at=0).read(struct.pack(">d", value), "big") == value


def parsed(frame: bytes, fields: dict[str, Any], **options: Any) -> list[Sample | Fault]:
    options = {"sync": "01", "size": len(frame)} | options
    return FrameParser(FrameFormat(fields=fields, **options)).feed(frame)


def test_what_becomes_of_a_value() -> None:
    fields = {
        "t": {"type": "i16", "at": 1, "scale": 0.1, "offset": -1, "unit": "°C"},
        "name": {"type": "text", "at": 3, "size": 2},
        "on": {"type": "u8", "at": 5, "bit": 1},
        "none": {"type": "u8", "at": 5, "missing": [2], "low": 5},
    }
    (item,) = parsed(b"\x01\x00\xd742\x02", fields)
    assert isinstance(item, Sample)
    assert repr(item.fields) == repr({"t": 20.5, "name": "42", "on": True, "none": None})


def test_one_bad_value_spoils_the_frame_unless_partial() -> None:
    frame = b"\x01" + struct.pack(">f", math.nan) + b"\xff"
    fields = {
        "bad": {"type": "f32", "at": 1},
        "high": {"type": "u8", "at": 5, "high": 9},
        "good": {"type": "u8", "at": 5},
    }
    assert parsed(frame, fields) == [Fault("number", "bad: not a finite number: nan", frame)]
    assert parsed(frame, fields, partial=True) == [
        Sample({"good": 255}),
        Fault("number", "bad: not a finite number: nan", frame),
        Fault("range", "high: 255 is above 9", frame),
    ]
    only = {"text": {"type": "text", "at": 3, "size": 2}}
    assert parsed(b"\x01ab\xff\xfe", only, partial=True) == [
        Fault("encoding", "text: byte 0xff at 0 is not UTF-8", b"\x01ab\xff\xfe")
    ]


def test_a_field_never_reads_check_or_tail() -> None:
    fields = {"a": {"type": "u8", "at": 2}, "b": {"type": "u16", "at": 3}}
    options = {"size": None, "length_at": 1, "check": "sum8", "tail": "0d 0a"}
    assert parsed(bytes.fromhex("01 08 05 00 07 15 0d 0a"), fields, **options) == [Sample({"a": 5, "b": 7})]
    (fault,) = parsed(bytes.fromhex("01 07 05 07 14 0d 0a"), fields, **options)
    assert isinstance(fault, Fault)
    assert fault.detail == "b: the frame has only 4 bytes before check and tail"


FIELDS = {"v": {"at": 1, "type": "u8"}}


def started(**options: Any) -> FakeContext:
    ctx = FakeContext("board")
    ctx.start(Frames, port="/dev/null", **{"sync": "55", "size": 2, "fields": FIELDS, **options})
    ctx.run()
    return ctx


def test_what_comes_by_itself() -> None:
    ctx = started(wakeup="01 02")
    assert ctx.port.written == b"\x01\x02"
    ctx.port.feed(b"\x55", b"\x07\x00\x55\x08")
    assert [sample.fields for sample in ctx.samples] == [{"v": 7}, {"v": 8}]
    assert [fault.kind for fault in ctx.faults] == ["syntax"]


def test_requests_are_sent_in_turn() -> None:
    ctx = started(requests=["a1", "a2 00"], interval=5)
    ctx.port.feed(b"\x55\x01")
    ctx.advance(5)
    ctx.port.feed(b"\x55\x02")
    ctx.advance(5)
    assert ctx.port.written == b"\xa1\xa2\x00\xa1"
    assert [sample.fields for sample in ctx.samples] == [{"v": 1}, {"v": 2}]
    ctx.advance(1)
    assert [fault.kind for fault in ctx.faults] == ["timeout"]


def test_an_answer_is_awaited_through_noise_and_echo() -> None:
    ctx = started(requests=["55 a1 00"], size=3, check="sum8")
    ctx.port.feed(b"\x55\xa1\x00", b"\x00", b"\x55\x07")  # echo of the question, noise, the answer in two pieces
    assert not ctx.emitted
    ctx.port.feed(b"\x5c")
    assert [fault.kind for fault in ctx.faults] == ["checksum"]
    assert [sample.fields for sample in ctx.samples] == [{"v": 7}]


def test_nothing_but_noise_is_no_answer() -> None:
    ctx = started(requests=["a1"], answer_timeout=1)
    ctx.port.feed(bytes(64 * 15))
    assert not ctx.emitted
    ctx.advance(1)
    assert [fault.kind for fault in ctx.faults] == ["syntax"] * 15 + ["timeout"]
    ctx = started(requests=["a1"], answer_timeout=1)
    ctx.port.feed(bytes(64 * 16))  # so much that it is given up, and thrown away until the next question
    assert [fault.kind for fault in ctx.faults] == ["syntax"] * 16
    ctx.port.feed(bytes(640))
    ctx.advance(1)
    assert len(ctx.faults) == 16


def test_requests_in_packets() -> None:
    ctx = started(framing="cobs", sync="", requests=["a1 00"])
    assert ctx.port.written == cobs_encode(b"\xa1\x00")
    ctx.port.feed(cobs_encode(b"\x00\x07"))
    assert [sample.fields for sample in ctx.samples] == [{"v": 7}]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"sync": "5"}, "pairs of hex digits"),
        ({"size": None}, "how long is a frame"),
        ({"length_at": 1}, "not both"),
        ({"sync": ""}, "nothing tells where a frame begins"),
        ({"check": "crc16"}, "crc-16/"),
        ({"check_begin": 1}, "for a check"),
        ({"check": "crc-32"}, "alone need 5"),
        ({"check": "sum8", "check_at": 5}, "no room for sum8 in 2 bytes"),
        ({"check": "sum8", "check_at": -3}, "no room for sum8 in 2 bytes"),
        ({"id_at": 1}, "no field has an id"),
        ({"fields": {}}, "at least 1"),
        ({"fields": {"v": {"at": 1, "type": "u16"}}}, "outside of 2 bytes"),
        ({"fields": {"v": {"at": -1, "type": "u16"}}}, "outside of 2 bytes"),
        ({"fields": {"v": {"at": -3, "type": "u8"}}}, "outside of 2 bytes"),
        ({"fields": {"v": {"at": 1, "type": "u8", "id": "01"}}}, "say id_at"),
        ({"fields": {"v": {"at": 1, "type": "u8", "size": 2}}}, "size is for bcd and text"),
        ({"fields": {"v": {"at": 1, "type": "text"}}}, "size is for bcd and text"),
        ({"fields": {"v": {"at": 1, "type": "u8", "bit": 8}}}, "only 8 bits"),
        ({"fields": {"v": {"at": 1, "type": "u8", "mask": 256}}}, "only 8 bits"),
        ({"fields": {"v": {"at": 1, "type": "u8", "bit": 0, "mask": 1}}}, "not both"),
        ({"fields": {"v": {"at": 0, "type": "text", "size": 2, "mask": 1}}}, "whole numbers"),
        ({"fields": {"v": {"at": 0, "type": "text", "size": 2, "missing": [1]}}}, "missing is for"),
        ({"fields": {"v": {"at": 1, "type": "u8", "scale": 0}}}, "scale = 0"),
        ({"fields": {"v": {"at": 1, "type": "u8", "bit": 0, "scale": 2}}}, "are for numbers"),
        ({"fields": {"a b": FIELDS["v"], "a_b": FIELDS["v"]}}, "share the topic"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        started(**options)


def test_the_order_of_a_check_is_that_of_its_kind() -> None:
    def order(**options: Any) -> str:
        return FrameFormat(sync="01", size=9, fields=FIELDS, **options).layout().check_order

    assert order(check="crc-16/modbus") == "little"
    assert order(check="crc-16/xmodem") == "big"
    assert order(check="crc-16/xmodem", order="little") == "little"
    assert order(check="sum16") == "big"
    assert order(check="crc-16/modbus", check_order="big") == "big"


def test_channels_are_known_before_the_first_frame() -> None:
    ctx = started(fields={"t": {"at": 1, "type": "i8", "unit": "°C", "low": -5, "device_class": "temperature"}})
    assert ctx.driver is not None
    (channel,) = ctx.driver.channels
    assert (channel.name, channel.unit, channel.low, channel.device_class) == ("t", "°C", -5, "temperature")
