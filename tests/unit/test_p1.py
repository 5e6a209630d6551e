"""The p1 driver: its configuration and what stands at the edges of a telegram. Whole telegrams stand in tests/cases."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from agent.driver import Fault, Sample
from agent.dsmr import LONGEST, Telegram, TelegramFramer, crc16
from agent.testing import FakeContext
from drivers.p1 import P1, P1Config, P1Parser


def telegram(body: bytes, *, crc: bool = True) -> bytes:
    text = b"/XMX5LGBBFG10\r\n\r\n" + body + b"!"
    return text + (b"%04X\r\n" % crc16(text) if crc else b"\r\n")


def parser(**options: Any) -> P1Parser:
    return P1Parser(P1Config(**{"name": "m", "driver": "p1", "port": "/dev/ttyUSB0", **options}))


def test_the_crc_is_that_of_the_catalogue() -> None:
    assert crc16(b"123456789") == 0xBB3D  # CRC-16/ARC, RevEng's catalogue


def test_it_listens_at_115200_baud_unless_told_otherwise() -> None:
    ctx = FakeContext("meter")
    driver = ctx.start(P1, port="/dev/ttyUSB0")
    assert driver.config.baudrate == 115200
    ctx.port.feed(telegram(b"1-0:1.7.0(00.244*kW)\r\n"))
    assert ctx.samples == [Sample({"power_import": 244.0})]
    assert not ctx.port.written


def test_only_the_channels_that_are_asked_for() -> None:
    ctx = FakeContext("meter")
    driver = ctx.start(P1, port="/dev/ttyUSB0", only=["power_import", "1-0:5.8.0"])
    assert [channel.name for channel in driver.channels] == ["power_import"]
    ctx.port.feed(telegram(b"1-0:1.7.0(00.244*kW)\r\n1-0:2.7.0(00.000*kW)\r\n1-0:5.8.0(000800.817*kWh)\r\n"))
    ctx.port.feed(telegram(b"1-0:2.7.0(00.000*kW)\r\n"))
    assert ctx.samples == [Sample({"power_import": 244.0, "1-0:5.8.0": 800.817})]
    assert not ctx.faults


def test_a_channel_that_no_meter_has_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"no channel of a meter: energy; there are energy_import, .*gas_time"):
        P1Config(name="m", driver="p1", port="/dev/x", only=["energy"])


def test_without_a_crc_one_bad_line_spoils_the_telegram_with_one_it_does_not() -> None:
    body = b"1-0:1.7.0(00.244*kW)\r\n1-0:2.7.0(00.0\r\n"
    bad = Fault("syntax", "a line that is no data set", b"1-0:2.7.0(00.0\r")
    assert parser().feed(telegram(body, crc=False)) == [bad]
    assert parser().feed(telegram(body)) == [bad, Sample({"power_import": 244.0})]


def test_a_time_that_is_none_is_left_out() -> None:
    body = b"0-1:24.1.0(003)\r\n0-1:24.2.1(632525252525W)(00112.384*m3)\r\n"
    assert parser().feed(telegram(body)) == [Sample({"gas": 112.384})]


def test_the_kind_of_a_meter_may_come_after_its_value_and_be_unknown() -> None:
    body = b"0-1:24.2.1(170102161005W)(1.5*m3)\r\n0-2:24.2.1(170102161005W)(2.5*m3)\r\n0-1:24.1.0(007)\r\n"
    (sample,) = parser(only=["water", "0-2:24.2.1"]).feed(telegram(body))
    assert sample == Sample({"water": 1.5, "0-2:24.2.1": 2.5})


def test_a_telegram_without_an_end_takes_no_more_than_its_limit() -> None:
    fed = parser()
    line = b"1-0:1.7.0(00.244*kW)\r\n"
    items = [item for _ in range(3) for item in fed.feed(b"/X\r\n" + line * (LONGEST // len(line) + 9))]
    assert [item.kind for item in items if isinstance(item, Fault)] == [
        "too_long",
        "syntax",
        "too_long",
        "syntax",
        "too_long",
    ]
    assert fed.feed(telegram(line))[-1] == Sample({"power_import": 244.0})


def test_the_framer_gives_the_lines_of_a_telegram_and_whether_a_crc_vouches_for_them() -> None:
    line = b"1-0:1.7.0(00.244*kW)"
    with_crc, without = telegram(line + b"\r\n"), telegram(line + b"\r\n", crc=False)
    framer = TelegramFramer()
    assert framer.feed(with_crc + without) == [Telegram([line + b"\r"], True), Telegram([line + b"\r"], False)]
