"""The sml driver: its framing and its tree, byte by byte. Telegrams of real meters stand in tests/cases."""

from __future__ import annotations

from typing import Any

import pytest

from agent.driver import Fault, Sample
from agent.sml import BEGIN, ESCAPE, LONGEST, TelegramFramer, kermit, registers, x25
from agent.testing import FakeContext
from drivers.sml import Sml, SmlConfig, SmlParser

POWER = bytes.fromhex("77 07 0100100700ff 01 01 621b 52ff 53 04d2 01")  # 16.7.0, W, 10^-1, 1234
ENERGY = bytes.fromhex("77 07 0100010800ff 650000 0182 01 621e 52ff 69 000000000000ffff 01")


def telegram(
    *entries: bytes, server: bytes = b"\x0a\x01EMH\x00\x00\x00\x00\x01", message: bytes | None = None
) -> bytes:
    """GetList.Res with these entries, framed. Its own CRC is left out, as nobody looks at it."""
    if message is None:
        values = bytes([0x70 + len(entries)]) + b"".join(entries)
        body = b"\x77\x01\x0b" + server + b"\x01\x01" + values + b"\x01\x01"
        message = b"\x76\x05\x00\x00\x00\x01\x62\x00\x62\x00\x72\x63\x07\x01" + body + b"\x63\x00\x00\x00"
    filling = -len(message) % 4
    framed = BEGIN + message.replace(ESCAPE, ESCAPE * 2) + bytes(filling) + ESCAPE + bytes([0x1A, filling])
    return framed + x25(framed).to_bytes(2, "little")


def parser(**options: Any) -> SmlParser:
    return SmlParser(SmlConfig(**{"name": "m", "driver": "sml", "port": "/dev/ttyUSB0", **options}))


def test_the_crcs_are_those_of_the_catalogue() -> None:
    assert x25(b"123456789") == 0x906E  # CRC-16/IBM-SDLC, alias X-25
    assert kermit(b"123456789") == 0x2189  # CRC-16/KERMIT


def test_a_telegram_is_a_reading() -> None:
    ctx = FakeContext("meter")
    driver = ctx.start(Sml, port="/dev/ttyUSB0", only=["power"])
    assert driver.config.baudrate == 9600
    assert [(channel.name, channel.unit) for channel in driver.channels] == [("power", "W")]
    ctx.port.feed(telegram(ENERGY, POWER)[:-1])
    assert not ctx.samples
    ctx.port.feed(telegram(ENERGY, POWER)[-1:])
    assert ctx.samples == [Sample({"power": 123.4})]
    ctx.port.feed(telegram(ENERGY))
    assert len(ctx.samples) == 1
    assert not ctx.faults


def test_numbers_of_any_width_with_and_without_sign() -> None:
    def power(value: str) -> float:
        (sample,) = parser().feed(
            telegram(bytes.fromhex("77 07 0100100700ff 01 01 621b 5200") + bytes.fromhex(value) + b"\x01")
        )
        assert isinstance(sample, Sample)
        return float(sample.fields["power"])  # type: ignore[arg-type]

    assert power("52 ff") == -1
    assert power("62 ff") == 255
    assert power("54 fffffe") == -2
    assert power("59 8000000000000000") == -(2.0**63)
    assert power("69 ffffffffffffffff") == 2.0**64


@pytest.mark.parametrize("run", [1, 3, 4, 5, 7, 8, 9, 12, 17])
def test_data_may_hold_the_escape_sequence_wherever_it_stands(run: int) -> None:
    text = b"\x1b" * run
    long = bytes([0x80 | run + 2 >> 4, run + 2 & 15]) + text
    entry = bytes.fromhex("77 07 0100600100ff 01 01 01 01") + long + b"\x01"
    assert parser().feed(telegram(entry, POWER)) == [Sample({"power": 123.4})]
    assert parser().feed(telegram(POWER, entry)) == [Sample({"power": 123.4})]


@pytest.mark.parametrize("run", range(1, 12))
def test_a_telegram_may_end_in_bytes_of_the_escape_sequence(run: int) -> None:
    text = b"x" * (-(run + 1) % 4) + b"\x1b" * run
    message = bytes([len(text) + 1]) + text  # a multiple of four bytes: no filling stands between
    assert parser().feed(telegram(message=message) + telegram(POWER)) == [Sample({"power": 123.4})]


def test_dzg_sends_a_positive_power_one_byte_too_short() -> None:
    dzg = b"\x0a\x01DZG\x00\x00\x00\x00\x01"
    short = bytes.fromhex("77 07 0100100700ff 01 01 621b 52fe 53 8b28 01")
    drawn = bytes.fromhex("77 07 0100010800ff 65 00000104 01 621e 52ff 62 01 01")
    delivered = bytes.fromhex("77 07 0100010800ff 65 00000904 01 621e 52ff 62 01 01")

    def power(*entries: bytes, server: bytes) -> object:
        (sample,) = parser(only=["power"]).feed(telegram(*entries, server=server))
        assert isinstance(sample, Sample)
        return sample.fields["power"]

    assert power(drawn, short, server=dzg) == 356.24
    assert power(delivered, short, server=dzg) == -299.12
    assert power(drawn, short, server=b"\x0a\x01EMH\x00\x00\x00\x00\x01") == -299.12


def test_noise_is_a_fault_and_the_next_telegram_is_read() -> None:
    fed = parser()
    good = telegram(POWER)
    garbled = good.replace(b"\x04\xd2", b"\x04\xd3")
    items = [*fed.feed(b"\x00tail" + garbled + good), *fed.feed(good[:30] + good + b"\x00\x00" + good + b"junk" + good)]
    assert [item.kind if isinstance(item, Fault) else "reading" for item in items] == [
        "checksum", "reading", "syntax", "reading", "reading", "syntax", "reading",
    ]  # fmt: skip
    assert items[5] == Fault("syntax", "bytes between telegrams", b"junk")


def test_an_unknown_escape_sequence_ends_the_telegram() -> None:
    items = parser().feed(BEGIN + b"\x76" + ESCAPE + b"\x02\0\0\0" + telegram(POWER))
    assert [item.detail if isinstance(item, Fault) else "" for item in items] == [
        "unknown escape sequence 02 00 00 00", "",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "message",
    [
        b"\x76",
        b"\x7f" + b"\0" * 4,
        b"\x71" * 20 + b"\x01",
        b"\xf0\x80\x80\x80\x80\x01",
        b"\xf0\x80",
        b"\x0f\x01",
        b"\x33\x01\x01",
        b"\x51",
        b"\x6a" + b"\1" * 9,
    ],
)  # fmt: skip
def test_a_tree_that_is_none_is_a_fault(message: bytes) -> None:
    (fault,) = parser().feed(telegram(message=message))
    assert isinstance(fault, Fault)
    assert fault.kind == "syntax"


def test_a_telegram_without_an_end_takes_no_more_than_its_limit() -> None:
    fed = parser()
    (fault,) = fed.feed(BEGIN + b"x" * LONGEST)
    assert fault == Fault("too_long", f"a telegram of more than {LONGEST} bytes", BEGIN + b"x" * 56)
    assert fed.feed(telegram(POWER)) == [Sample({"power": 123.4})]


def test_what_a_fault_shows_does_not_depend_on_what_has_come_after_it() -> None:
    for broken, length in ((BEGIN + b"\x76\x05" + ESCAPE + b"\x02\0\0\0", 18), (BEGIN + b"\x76\x05" + BEGIN, 10)):
        (fault, *_) = parser().feed(broken + telegram(POWER))
        assert isinstance(fault, Fault)
        assert fault.raw == broken[:length]


def test_the_framer_gives_whole_telegrams_whose_registers_are_read_apart_from_it() -> None:
    framer, whole = TelegramFramer(), telegram(POWER)
    assert framer.feed(whole[:-1]) == []
    assert framer.feed(whole[-1:] + whole) == [whole, whole]
    assert registers(whole) == {"power": 123.4}
    with pytest.raises(ValueError, match="longer than the telegram"):
        registers(telegram(message=b"\x07\x01"))
