"""sds011, pms5003, mhz19: what they send to the sensor and when, and what they refuse of a configuration."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from agent.driver import Driver
from agent.testing import FakeContext
from drivers.mhz19 import Mhz19
from drivers.pms5003 import Pms5003
from drivers.sds011 import Sds011

SDS_READING = bytes.fromhex("aa c0 d4 04 3a 0a a1 60 1d ab")  # control protocol V1.3, section 3.2
PMS_READING = bytes.fromhex(  # PyPMS, tests/captured_data/PMSx003.hexdump
    "42 4d 00 1c 00 00 00 08 00 08 00 00 00 08 00 08 00 d2 00 46 00 2d 00 1e 00 00 00 00 97 00 02 c5"
)
CO2_READING = bytes.fromhex("ff 86 02 20 00 00 00 00 58")  # MH-Z19B user's manual V1.0

# To any sensor, ID FFFF: as in the control protocol V1.3, whose examples have an ID in some of them.
SDS_WORK = "aab406010100000000000000000000ffff06ab"
SDS_SLEEP = "aab406010000000000000000000000ffff05ab"
SDS_ACTIVE = "aab402010000000000000000000000ffff01ab"
SDS_QUERY_MODE = "aab402010100000000000000000000ffff02ab"
SDS_ASK = "aab404000000000000000000000000ffff02ab"
SDS_PERIOD_5 = "aab408010500000000000000000000ffff0cab"
PMS_WAKE, PMS_SLEEP = "424de400010174", "424de400000173"
PMS_PASSIVE, PMS_ACTIVE, PMS_ASK = "424de100000170", "424de100010171", "424de200000171"


class Started(FakeContext):
    seen = 0

    def sent(self) -> str:
        """What was written since the last call, in hex."""
        new = self.port.written[self.seen :]
        self.seen += len(new)
        return new.hex()


def started(driver: type[Driver], **options: Any) -> Started:
    ctx = Started("air")
    ctx.start(driver, port="/dev/null", **options)
    return ctx


def test_sds011_by_itself() -> None:
    ctx = started(Sds011)
    assert ctx.sent() == SDS_WORK + SDS_ACTIVE
    ctx.port.feed(SDS_READING)
    assert ctx.samples[0].fields == {"pm2_5": 123.6, "pm10": 261.8}
    assert started(Sds011, period=5).sent() == SDS_WORK + SDS_ACTIVE + SDS_PERIOD_5


def test_sds011_asked() -> None:
    ctx = started(Sds011, mode="query", interval=60)
    ctx.run()
    assert ctx.sent() == SDS_WORK + SDS_QUERY_MODE + SDS_ASK
    ctx.port.feed(bytes.fromhex("aa c5 02 01 01 00 a1 60 05 ab") + SDS_READING[:4])  # the answer to the mode first
    assert not ctx.emitted
    ctx.port.feed(SDS_READING[4:])
    assert len(ctx.samples) == 1
    ctx.advance(60)
    assert ctx.sent() == SDS_ASK
    ctx.advance(1)
    assert [fault.kind for fault in ctx.faults] == ["timeout"]


def test_sds011_sleeps_between_questions() -> None:
    ctx = started(Sds011, mode="query", sleep=True, interval=120, warm_up=30, answer_timeout=1)
    ctx.run()
    assert ctx.sent() == SDS_WORK + SDS_QUERY_MODE + SDS_WORK
    ctx.advance(29.9)
    assert ctx.sent() == ""
    ctx.advance(0.1)
    assert ctx.sent() == SDS_ASK
    ctx.port.feed(SDS_READING)
    ctx.advance(1)
    assert ctx.sent() == SDS_SLEEP
    ctx.advance(89)
    assert ctx.sent() == SDS_WORK
    assert len(ctx.samples) == 1
    assert not ctx.faults


def test_pms5003_by_itself() -> None:
    ctx = started(Pms5003)
    assert ctx.sent() == PMS_WAKE + PMS_ACTIVE
    ctx.port.feed(PMS_READING)
    assert ctx.samples[0].fields["pm2_5"] == 8
    assert list(ctx.samples[0].fields) == [channel.name for channel in Pms5003.channels]
    assert started(Pms5003, model="pms3003").sent() == ""


def test_pms3003_and_its_channels() -> None:
    ctx = started(Pms5003, model="pms3003")
    ctx.port.feed(bytes.fromhex("42 4d 00 14 00 01 00 02 00 03 00 04 00 05 00 06 00 00 00 00 00 00 00 b8"))
    assert ctx.samples[0].fields == {"pm1_cf1": 1, "pm2_5_cf1": 2, "pm10_cf1": 3, "pm1": 4, "pm2_5": 5, "pm10": 6}
    assert ctx.driver is not None
    assert [channel.name for channel in ctx.driver.channels] == list(ctx.samples[0].fields)


def test_pms5003t_below_zero() -> None:
    ctx = started(Pms5003, model="pms5003t")
    body = b"\x42\x4d\x00\x1c" + bytes(20) + (-52).to_bytes(2, "big", signed=True) + (801).to_bytes(2, "big") + bytes(2)
    ctx.port.feed(body + sum(body).to_bytes(2, "big"))
    assert list(ctx.samples[0].fields.items())[-2:] == [("temperature", -5.2), ("humidity", 80.1)]


def test_pms5003_sleeps_between_questions() -> None:
    ctx = started(Pms5003, mode="passive", sleep=True, interval=120)
    ctx.run()
    assert ctx.sent() == PMS_WAKE + PMS_PASSIVE + PMS_WAKE
    ctx.advance(30)
    assert ctx.sent() == PMS_PASSIVE + PMS_ASK
    ctx.port.feed(bytes.fromhex("42 4d 00 04 e1 00 01 74"))  # an answer to a command is none to the question
    ctx.port.feed(PMS_READING)
    ctx.advance(1)
    assert ctx.sent() == PMS_SLEEP
    assert len(ctx.emitted) == 1
    ctx.blocked = True
    ctx.advance(89)
    assert ctx.sent() == ""  # nobody would take a reading: let it sleep


def test_pms5003_asked() -> None:
    ctx = started(Pms5003, mode="passive", interval=10)
    ctx.run()
    assert ctx.sent() == PMS_WAKE + PMS_PASSIVE + PMS_ASK
    ctx.port.feed(PMS_READING)
    ctx.advance(10)
    assert ctx.sent() == PMS_ASK
    assert len(ctx.samples) == 1


def test_mhz19() -> None:
    ctx = started(Mhz19, interval=30)
    ctx.run()
    assert ctx.sent() == "ff0186000000000079"
    ctx.port.feed(CO2_READING)
    assert ctx.samples[0].fields == {"co2": 544}
    ctx.advance(30)
    assert ctx.sent() == "ff0186000000000079"


def test_mhz19_that_warms_up_has_answered() -> None:
    ctx = started(Mhz19, answer_timeout=1)
    ctx.run()
    ctx.port.feed(b"\0", bytes.fromhex("ff 86 00 00 00 00 00 00 7a"))
    assert [fault.kind for fault in ctx.faults] == ["syntax", "number"]
    ctx.advance(1)
    assert len(ctx.faults) == 2  # no "timeout"


@pytest.mark.parametrize(
    ("options", "commands"),
    [
        ({"self_calibration": True}, "ff0179a000000000e6"),  # MH-Z19B user's manual V1.0, 0x79
        ({"self_calibration": False}, "ff0179000000000086"),
        ({"range": 2000}, "ff019900000007d08f"),  # revspace.nl/MHZ19, "Setting the measurement range"
        ({"range": 5000, "self_calibration": False}, "ff0179000000000086ff01990000001388cb"),
    ],
)
def test_mhz19_is_set_as_the_configuration_says(options: dict[str, Any], commands: str) -> None:
    ctx = started(Mhz19, **options)
    assert ctx.sent().startswith(commands)


def test_mhz19_has_the_channel_of_a_temperature_only_if_it_publishes_one() -> None:
    for wanted in (True, False):
        ctx = started(Mhz19, temperature=wanted)
        ctx.run()
        ctx.port.feed(CO2_READING)
        assert ctx.driver is not None
        assert list(ctx.samples[0].fields) == [channel.name for channel in ctx.driver.channels]
        assert len(ctx.driver.channels) == 1 + wanted


@pytest.mark.parametrize(
    ("driver", "options", "why"),
    [
        (Sds011, {"mode": "query", "period": 5}, "period is for mode"),
        (Sds011, {"sleep": True}, "sleep is for mode"),
        (Sds011, {"mode": "query", "sleep": True, "interval": "31s"}, "an interval above"),
        (Sds011, {"period": 31}, "30"),
        (Pms5003, {"model": "pms3003", "mode": "passive"}, "takes no commands"),
        (Pms5003, {"sleep": True}, "sleep is for mode"),
        (Pms5003, {"mode": "passive", "sleep": True, "interval": "30s"}, "an interval above"),
        (Mhz19, {"range": 3000}, "range"),
    ],
)
def test_what_does_not_go_together_is_refused(driver: type[Driver], options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        started(driver, **options)
