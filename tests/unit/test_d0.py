"""The d0 driver: the conversation with a meter, the ends of a readout. Those of real meters stand in tests/cases."""

from __future__ import annotations

from functools import reduce
from operator import xor
from typing import Any

import pytest
from pydantic import ValidationError

from agent.driver import Fault, Sample
from agent.iec62056 import LONGEST, answer
from agent.testing import FakeContext
from drivers.d0 import D0, D0Config, D0Parser

BLOCK = b"1.8.0(0000502.853*kWh)\r\n16.7.0(00.250*kW)\r\n!\r\n\x03"
READING = Sample({"energy_import": 502.853, "power": 250.0})


def block(text: bytes = BLOCK) -> bytes:
    return b"\x02" + text + bytes([reduce(xor, text)])


def parser(**options: Any) -> D0Parser:
    return D0Parser(D0Config(**{"name": "m", "driver": "d0", "port": "/dev/ttyUSB0", **options}))


def asked(**options: Any) -> FakeContext:
    ctx = FakeContext("meter")
    ctx.start(D0, port="/dev/ttyUSB0", interval="60s", answer_timeout="3s", **options)
    ctx.run()
    return ctx


def test_in_mode_c_it_takes_the_speed_that_the_meter_offers() -> None:
    ctx = asked()
    assert (ctx.driver.config.baudrate, ctx.driver.config.bytesize, ctx.driver.config.parity) == (300, 7, "even")
    assert ctx.port.written == b"/?!\r\n"
    ctx.port.feed(b"/ISk5MT174-00", b"02\r\n")
    assert ctx.port.written == b"/?!\r\n\x06050\r\n"
    assert ctx.port.baudrate is None
    ctx.port.feed(b"\x06050\r\n")  # a head that echoes must not put the switch off
    ctx.advance(0.19)
    assert ctx.port.baudrate is None  # our answer takes six characters of ten bits: 200 ms
    ctx.advance(0.025)
    assert ctx.port.baudrate == 9600  # within the 20 ms after which such a meter may begin
    ctx.port.feed(block())
    assert ctx.emitted == [READING]
    ctx.advance(60)
    assert ctx.port.baudrate == 300
    assert ctx.port.written.endswith(b"\x06050\r\n/?!\r\n")
    assert ctx.emitted == [READING]


def test_it_stays_at_the_first_speed_where_it_is_told_to() -> None:
    ctx = asked(fast=False, address="00123")
    assert ctx.port.written == b"/?00123!\r\n"
    ctx.port.feed(b"/LGZ4ZMF100AC.M26\r\n")
    assert ctx.port.written.endswith(b"\x06000\r\n")
    ctx.advance(1)
    ctx.port.feed(block())
    assert ctx.emitted == [READING]
    assert ctx.port.baudrate is None


def test_in_mode_b_the_meter_changes_its_speed_unasked_and_in_mode_a_it_does_not() -> None:
    ctx = asked()
    ctx.port.feed(b"/LUGCUH50\r\n")
    assert ctx.port.baudrate == 2400
    ctx.port.feed(block())
    assert ctx.emitted == [READING]
    assert ctx.port.written == b"/?!\r\n"
    ctx = asked()
    ctx.port.feed(b"/XYZ@metre\r\n" + block())
    assert ctx.emitted == [READING]
    assert ctx.port.baudrate is None


def test_a_battery_meter_is_woken_first() -> None:
    ctx = asked(wakeup=True)
    assert ctx.port.written == bytes(65)
    ctx.port.feed(bytes(65))  # the echo
    ctx.advance(65 * 10 / 300 + 1.5)
    assert ctx.port.written == bytes(65)
    ctx.advance(0.2)
    assert ctx.port.written == bytes(65) + b"/?!\r\n"
    ctx.port.feed(b"/?!\r\n/LUGCUH50\r\n" + block())
    assert ctx.emitted == [READING]


def test_a_silent_meter_is_a_fault_and_is_asked_again() -> None:
    ctx = asked()
    ctx.advance(3)
    assert ctx.emitted == [Fault("timeout", "silent for 3 s")]
    ctx.advance(57)
    assert ctx.port.written == b"/?!\r\n" * 2
    ctx.port.feed(b"/ISk5MT174-0002\r\n")
    ctx.advance(2)
    for piece in (block()[:10], block()[10:20]):  # as long as something comes it is waited for
        ctx.port.feed(piece)
        ctx.advance(2)
    ctx.advance(1)
    assert [fault.kind for fault in ctx.faults] == ["timeout", "cut", "timeout"]
    assert ctx.port.written.count(b"/?!") == 2


def test_a_question_is_not_asked_into_a_readout_nor_when_nobody_would_take_it() -> None:
    ctx = asked(fast=False)
    ctx.port.feed(b"/LGZ4ZMF100AC.M26\r\n\x02")
    for _ in range(70):
        ctx.port.feed(b"F.F(00)\r\n")
        ctx.advance(1)
    assert ctx.port.written.count(b"/?!") == 1
    ctx.advance(3)
    ctx.blocked = True
    ctx.advance(120)
    assert ctx.port.written.count(b"/?!") == 1


def test_what_comes_unasked_is_thrown_away() -> None:
    ctx = asked()
    ctx.advance(3)
    ctx.port.feed(b"/ISk5MT174-0002\r\n" + block())
    assert not ctx.samples


def test_a_meter_that_sends_by_itself_is_asked_nothing() -> None:
    ctx = FakeContext("meter")
    ctx.start(D0, port="/dev/ttyUSB0", mode="push", baudrate=9600)
    text = b"/EBZ5DD3\r\n\r\n1-0:1.8.0*255(0000502.853*kWh)\r\n1-0:16.7.0*255(000250.00*W)\r\n!\r\n"
    ctx.port.feed(text + text)
    assert ctx.emitted == [READING, READING]
    assert ctx.port.written == b""
    ctx.port.feed(text.replace(b"250.00*W)", b"250.00*W"))  # nothing checks it: one bad line spoils it all
    assert ctx.emitted[2:] == [Fault("syntax", "a line that is no data set", b"1-0:16.7.0*255(000250.00*W")]


def test_an_end_that_is_lost_costs_one_readout() -> None:
    fed = parser()
    good = b"/ISk5MT174-0002\r\n" + block()
    items = list(fed.feed(good[:40] + b"\r\n" + good + good))
    assert [item.kind if isinstance(item, Fault) else item for item in items] == ["checksum", READING, READING]
    fed = parser(mode="push")
    pushed = b"/EBZ5DD3\r\n\r\n1-0:1.8.0*255(0000502.853*kWh)\r\n1-0:16.7.0*255(000250.00*W)\r\n!\r\n"
    items = list(fed.feed(pushed[:40] + b"\r\n" + pushed))
    assert [item.kind if isinstance(item, Fault) else item for item in items] == ["syntax", READING]


def test_the_check_character_may_be_any_byte() -> None:
    for filler in range(0x20, 0x7F):
        if bytes([filler]) in b"()!/*":
            continue
        text = b"0.0.0(%c)\r\n" % filler + BLOCK
        assert list(parser().feed(b"/ISk5X\r\n" + block(text) + b"/ISk5X\r\n" + block())) == [READING, READING]


def test_a_readout_without_an_end_takes_no_more_than_its_limit() -> None:
    fed = parser()
    (fault,) = fed.feed(b"/ISk5X\r\n\x02" + b"x" * (LONGEST + 10))
    assert isinstance(fault, Fault)
    assert fault.kind == "too_long"
    assert list(fed.feed(b"/ISk5X\r\n" + block())) == [READING]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"port": "socket://10.0.0.2:4000"}, "say fast = false"),
        ({"address": "12!"}, "String should match"),
        ({"mode": "pull"}, "'ask' or 'push'"),
    ],
)
def test_what_can_never_work_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        parser(**options)
    parser(port="socket://10.0.0.2:4000", fast=False)
    parser(port="socket://10.0.0.2:4000", mode="push")
    parser(port="rfc2217://10.0.0.2:4000")


@pytest.mark.parametrize(
    ("offer", "fast", "told", "rate"),
    [
        (b"5", True, b"\x06050\r\n", 9600),  # mode C
        (b"5", False, b"\x06000\r\n", None),
        (b"C", True, b"", 2400),  # mode B: it goes on at its speed, whatever we say
        (b"C", False, b"", None),
        (b" ", True, b"", None),  # mode A
        (b"", True, b"", None),
    ],
)
def test_what_is_said_to_an_offered_speed(offer: bytes, fast: bool, told: bytes, rate: int | None) -> None:
    assert answer(offer, fast=fast) == (told, rate)
