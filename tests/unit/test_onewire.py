"""The onewire driver on a fake tree of sysfs. What its files may say stands in tests/cases."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.driver import Channel, Fault, PortError, Sample
from agent.driver_worker import ANSWER
from agent.sysfs_w1 import crc8, damage, never_converted, sensors, slave_file
from agent.testing import FakeContext
from drivers.onewire import OneWire

FLOW, RETURN = "28-0000075f5202", "28-0000075f24dc"
WARM = b"a1 01 4b 46 7f ff 0f 10 d9 : crc=d9 YES\na1 01 4b 46 7f ff 0f 10 d9 t=26062\n"
COLD = b"70 01 4b 46 7f ff 10 10 e1 : crc=e1 YES\n70 01 4b 46 7f ff 10 10 e1 t=23000\n"


class Bus:
    """What the kernel shows of a 1-Wire bus."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "bus/w1/devices"
        (self.folder / "w1_bus_master1").mkdir(parents=True)

    def put(self, sensor: str, text: bytes) -> Path:
        (self.folder / sensor).mkdir(exist_ok=True)
        (self.folder / sensor / "w1_slave").write_bytes(text)
        return self.folder / sensor / "w1_slave"


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bus:
    monkeypatch.setattr(OneWire, "root", tmp_path)
    made = Bus(tmp_path)
    made.put(FLOW, WARM)
    made.put(RETURN, COLD)
    return made


def started(ctx: FakeContext, **options: Any) -> OneWire:
    driver = ctx.start(OneWire, **options)
    ctx.run()
    return driver


@pytest.mark.usefixtures("bus")
def test_each_sensor_is_a_reading_of_its_own_once_an_interval() -> None:
    ctx = FakeContext("boiler")
    driver = started(ctx, interval=30, channels={FLOW: {"name": "flow", "offset": -0.3}})
    assert ctx.samples == [Sample({RETURN: 23.0}), Sample({"flow": 25.762})]
    assert driver.channels == (
        Channel(RETURN, "°C", -55, 125, "temperature", "measurement"),
        Channel("flow", "°C", None, None, "temperature", "measurement"),
    )
    ctx.advance(29)
    assert len(ctx.samples) == 2
    ctx.advance(2)
    assert len(ctx.samples) == 4
    assert not ctx.faults


def test_sensors_come_and_go(bus: Bus) -> None:
    ctx = FakeContext("boiler")
    started(ctx, channels={FLOW: {"name": "flow"}})
    bus.put("10-000802b4d9f1", WARM)
    (bus.folder / FLOW / "w1_slave").unlink()
    (bus.folder / FLOW).rmdir()
    ctx.samples.clear()
    ctx.advance(10)
    assert ctx.samples == [Sample({"10-000802b4d9f1": 26.062}), Sample({RETURN: 23.0})]
    assert ctx.faults == [Fault("missing", f"{FLOW} is not on the bus")]


@pytest.mark.usefixtures("bus")
def test_others_may_be_left_alone() -> None:
    ctx = FakeContext("boiler")
    driver = started(ctx, channels={FLOW: {"name": "flow"}}, others="drop")
    assert ctx.samples == [Sample({"flow": 26.062})]
    assert [channel.name for channel in driver.channels] == ["flow"]


def test_a_bus_without_sensors_does_not_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OneWire, "root", tmp_path)
    with pytest.raises(PortError, match="w1-gpio"):
        FakeContext("boiler").start(OneWire)


def test_when_the_last_sensor_goes_the_device_is_lost(bus: Bus) -> None:
    ctx = FakeContext("boiler")
    started(ctx)
    for sensor in (FLOW, RETURN):
        (bus.folder / sensor / "w1_slave").unlink()
    ctx.advance(10)
    assert len(ctx.losses) == 1


def test_a_sensor_that_cannot_be_read_takes_no_other_with_it(bus: Bus) -> None:
    bus.put(RETURN, b"").unlink()
    (bus.folder / RETURN / "w1_slave").mkdir()
    ctx = FakeContext("boiler")
    started(ctx)
    assert ctx.faults == [Fault("unreadable", f"{RETURN}: Is a directory")]
    assert ctx.samples == [Sample({FLOW: 26.062})]


@pytest.mark.usefixtures("bus")
def test_what_hangs_is_asked_once() -> None:
    ctx = FakeContext("boiler", work="deferred")
    ctx.start(OneWire, interval=10)
    ctx.run()
    assert ctx.do_work(1) == 1  # what there is
    ctx.advance(ANSWER + 1)
    assert [fault.kind for fault in ctx.faults] == ["timeout", "timeout"]
    ctx.advance(30)
    assert [fault.detail for fault in ctx.faults[2:]] == ["what was asked an interval ago has not answered yet"] * 3
    assert ctx.do_work() == 1  # the end of the round: nothing else was queued meanwhile
    ctx.advance(10)
    ctx.do_work()
    assert len(ctx.samples) == 2


@pytest.mark.usefixtures("bus")
def test_nothing_is_asked_while_nobody_takes_it_and_a_full_queue_is_a_fault() -> None:
    ctx = FakeContext("boiler")
    ctx.blocked = True
    started(ctx)
    assert not ctx.emitted
    full = FakeContext("boiler", work="rejected")
    started(full)
    full.advance(10)
    assert [fault.kind for fault in full.faults] == ["unreadable", "unreadable"]
    assert not full.losses


def test_the_crc_is_that_of_the_catalogue() -> None:
    assert crc8(b"123456789") == 0xA1  # CRC-8/MAXIM-DOW, check value
    assert crc8(bytes.fromhex("02 1c b8 01 00 00 00")) == 0xA2  # Maxim, application note 27, the example


@pytest.mark.usefixtures("bus")
def test_what_the_kernel_shows(tmp_path: Path) -> None:
    assert sensors(tmp_path) == [RETURN, FLOW]
    assert slave_file(tmp_path, FLOW) == WARM
    assert slave_file(tmp_path, "28-gone") is None
    assert sensors(tmp_path / "no bus") == []


def test_what_a_scratchpad_says() -> None:
    good = b"a1 01 4b 46 7f ff 0f 10 d9 "
    assert damage(good, good=True) is None
    assert damage(good, good=False) == "the CRC does not fit"
    assert damage(good.replace(b"a1", b"a2"), good=True) == "the CRC does not fit"
    assert str(damage(b"00 " * 9, good=True)).startswith("all zero")
    after_power_on, converted = b"50 05 4b 46 7f ff 0c 10 1c ", b"50 05 4b 46 7f ff 10 10 00 "
    assert never_converted(after_power_on, 85000)
    assert not never_converted(converted, 85000)
    assert not never_converted(after_power_on, 84937)


lines = st.sampled_from([*WARM.splitlines(), *COLD.splitlines(), b"", b"t=1", b"x" * 90, b"00 " * 9 + b": crc=00 YES"])


@settings(deadline=None)
@given(parts=st.lists(st.one_of(lines, st.binary(max_size=50)), max_size=8), seed=st.integers(0, 999))
def test_any_bytes_give_the_same_items_however_cut(parts: list[bytes], seed: int) -> None:
    data = b"\n".join(parts)
    config = OneWire.Config(name="b", driver="onewire")
    whole, pieces = (OneWire(config, FakeContext()).parser() for _ in range(2))
    expected = [*whole.feed(data), *whole.end()]
    rng, again, at = random.Random(seed), [], 0
    while at < len(data):
        step = rng.choice((1, 2, 17, 60))
        again += pieces.feed(data[at : at + step])
        at += step
    assert [*again, *pieces.end()] == expected
