"""The gpio driver on a real kernel with gpio-sim, in a virtual machine: run by tests/gpio/run, never by itself.

gpio-sim (Documentation/admin-guide/gpio/gpio-sim.rst) makes chips by configfs; ``pull`` in sysfs is the world outside.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from contract import Contract

from agent.driver import GpioLine, GpioPort, PortError
from agent.edges import EVENT
from agent.ports_gpio import find_chip, open_gpio
from agent.testing import Outstation

assert os.environ.get("GPIO_SIM"), "this wants a kernel with gpio-sim: make gpio"
CONFIG = Path("/sys/kernel/config/gpio-sim")
LINES = 8
Start = Callable[..., Outstation]


class Sim:
    """A chip of the kernel's simulator."""

    def __init__(self, label: str = "sim") -> None:
        self.label = label
        self._folder = CONFIG / label
        self._ports: list[GpioPort] = []

    def plug(self) -> None:
        (self._folder / "bank0" / "line5").mkdir(parents=True)
        (self._folder / "bank0" / "num_lines").write_text(str(LINES))
        (self._folder / "bank0" / "label").write_text(self.label)
        (self._folder / "bank0" / "line5" / "name").write_text("DOOR")
        (self._folder / "live").write_text("1")
        self.chip = (self._folder / "bank0" / "chip_name").read_text().strip()
        device = (self._folder / "dev_name").read_text().strip()
        self._lines = Path("/sys/devices/platform") / device / self.chip

    def remove(self) -> None:
        if self._folder.exists():
            (self._folder / "live").write_text("0")
            for part in ("bank0/line5", "bank0", ""):
                (self._folder / part).rmdir()

    def open(self, lines: Sequence[GpioLine]) -> GpioPort:
        self._ports.append(open_gpio(self.label, lines))
        return self._ports[-1]

    def close(self) -> None:
        for port in self._ports:
            port.close()
        self.remove()

    def drive(self, offset: int, high: bool) -> None:
        (self._lines / f"sim_gpio{offset}" / "pull").write_text("pull-up" if high else "pull-down")

    def level(self, offset: int) -> bool:
        return (self._lines / f"sim_gpio{offset}" / "value").read_text().strip() == "1"


@pytest.fixture
def world() -> Iterator[Sim]:
    sim = Sim()
    sim.plug()
    yield sim
    sim.close()


class TestKernel(Contract):
    """The contract, on the kernel."""


# -- requesting lines -----------------------------------------------------------------------------------------------


def test_a_chip_is_found_by_path_name_and_label(world: Sim) -> None:
    path = f"/dev/{world.chip}"
    assert find_chip(path) == find_chip(world.chip) == find_chip("sim") == path
    with pytest.raises(PortError, match=r"no GPIO chip is named or labelled nonsense; there are gpiochip\d \(sim\)"):
        find_chip("nonsense")
    other = Sim("other")
    other.plug()
    try:
        assert find_chip("other") == f"/dev/{other.chip}"
    finally:
        other.close()


def test_what_cannot_be_requested_says_why(world: Sim) -> None:
    with pytest.raises(PortError, match="has no line 8; its lines are 0 to 7") as caught:
        world.open([GpioLine(8)])
    assert caught.value.reason == "missing"
    with pytest.raises(PortError, match="has no line WINDOW"):
        world.open([GpioLine("WINDOW")])
    with pytest.raises(PortError, match="line 5 is configured twice"):
        world.open([GpioLine("DOOR"), GpioLine(5)])
    world.open([GpioLine("DOOR")])
    with pytest.raises(PortError, match=r"line 5 of .* is held by outstation") as caught:
        world.open([GpioLine(5)])
    assert caught.value.reason == "busy"


def test_an_output_that_is_kept_stays_as_it_was_found(world: Sim) -> None:
    world.drive(3, True)
    port = world.open([GpioLine(3, output=True), GpioLine(4, output=True, active_low=True)])
    assert [world.level(3), world.level(4)] == [True, False]
    assert port.levels() == (True, True)


def test_debounce_is_the_kernels(world: Sim) -> None:
    port = world.open([GpioLine(0, edges="both", debounce=0.2)])
    for number in range(5):  # bounces; ends high
        world.drive(0, number % 2 == 0)
    assert port.read() == b""
    deadline = time.monotonic() + 20
    data = b""
    while not data and time.monotonic() < deadline:
        data = port.read()
    assert len(data) == EVENT.size
    assert EVENT.unpack(data)[1] == 1
    assert port.read() == b""


# -- the whole agent --------------------------------------------------------------------------------------------------


def device(world: Sim, **lines: Any) -> dict[str, Any]:
    return {"device": [{"name": "io", "driver": "gpio", "chip": world.label, "interval": "500ms", **lines}]}


def command(outstation: Outstation, output: str, payload: str) -> dict[str, Any]:
    outstation.subscriber.publish(f"{outstation.topic}/io/{output}/set", payload.encode())
    answer: dict[str, Any] = outstation.subscriber.next(f"{outstation.topic}/response/set", 30).json()
    return answer


def last(outstation: Outstation, channel: str) -> Any:
    found = [reading.fields[channel] for reading in outstation.readings("io") if channel in reading.fields]
    return found[-1] if found else None


def wait_last(outstation: Outstation, channel: str, value: object) -> None:
    """Wait until the channel's latest value is this one."""
    outstation.subscriber.wait_for(lambda _: last(outstation, channel) == value, 30)


def start(outstation_start: Start, config: dict[str, Any]) -> Outstation:
    outstation = outstation_start(config, wait=False)
    outstation.timeout = 60
    outstation.wait_online(timeout=60)
    outstation.wait_online("io", timeout=60)
    return outstation


def test_an_input_is_read_at_each_edge(world: Sim, outstation_start: Start) -> None:
    config = device(world, inputs={"door": {"line": "DOOR", "debounce": "1ms"}}, interval="1h")
    outstation = start(outstation_start, config)
    wait_last(outstation, "door", False)
    for high in (True, False, True):
        world.drive(5, high)
        wait_last(outstation, "door", high)
    readings = outstation.readings("io")
    assert [reading.fields for reading in readings] == [{"door": value} for value in (False, True, False, True)]
    assert [reading.ts for reading in readings] == sorted(reading.ts for reading in readings)


def test_a_thousand_pulses_and_none_is_lost_also_over_a_restart(world: Sim, outstation_start: Start) -> None:
    outstation = start(outstation_start, device(world, counters={"water": {"line": 2, "unit": "L", "per_unit": 10}}))
    for _ in range(500):
        world.drive(2, True)
        world.drive(2, False)
    wait_last(outstation, "water", 50.0)
    assert outstation.terminate(60) == 0
    outstation.start()
    for _ in range(500):
        world.drive(2, True)
        world.drive(2, False)
    wait_last(outstation, "water", 100.0)
    assert last(outstation, "water_lost") == 0
    assert not outstation.status()["devices"]["io"]["faults"]


def test_an_output_obeys_pulses_and_is_off_after_the_stop(world: Sim, outstation_start: Start) -> None:
    outputs = {"pump": {"line": 6}, "bell": {"line": 7, "active_low": True, "pulse": "300ms"}}
    outstation = start(outstation_start, device(world, outputs=outputs))
    assert [world.level(6), world.level(7)] == [False, True]
    assert command(outstation, "pump", "on")["status"] == "ok"
    assert world.level(6)
    assert command(outstation, "pump", "2")["status"] == "error"
    assert world.level(6)
    assert command(outstation, "bell", "on")["status"] == "ok"
    wait_last(outstation, "bell", False)
    rings = [reading.fields["bell"] for reading in outstation.readings("io") if list(reading.fields) == ["bell"]]
    assert rings == [True, False]
    assert world.level(7)
    assert outstation.terminate(60) == 0
    assert not world.level(6)


def test_a_chip_that_goes_and_comes_back(world: Sim, outstation_start: Start) -> None:
    config = device(world, inputs={"door": {"line": 5}}, counters={"water": {"line": 2}})
    outstation = start(outstation_start, config)
    world.drive(2, True)
    wait_last(outstation, "water", 1.0)
    world.remove()
    outstation.wait_offline("io", 60)
    outstation.wait_log(r"device\.lost device=io reason=.*gone: No such device", 60)
    world.plug()
    outstation.wait_online("io", 60)
    world.drive(5, True)
    wait_last(outstation, "door", True)
    world.drive(2, True)
    wait_last(outstation, "water", 2.0)
