"""The gpio driver without hardware: agent.testing's FakeGpio, which keeps the kernel's contract (tests/gpio)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from agent.cli_replaying import Replay
from agent.driver import PortError
from agent.edges import EVENT
from agent.recording import Entry
from agent.testing import FakeContext
from drivers.gpio import Gpio

DOOR = {"inputs": {"door": {"line": 17, "active_low": True, "bias": "pull-up"}}}
WATER = {"counters": {"water": {"line": 27, "unit": "L", "per_unit": 10, "rate_per": "min"}}}
PUMP = {"outputs": {"pump": {"line": 22}}}


def begin(ctx: FakeContext | None = None, **config: Any) -> FakeContext:
    ctx = ctx or FakeContext("io")
    ctx.start(Gpio, chip="pinctrl-test", **config)
    ctx.run()
    return ctx


def fields(ctx: FakeContext) -> list[dict[str, Any]]:
    return [sample.fields for sample in ctx.samples]


def pulse(ctx: FakeContext, times: int = 1, every: float = 0.0, line: int = 27) -> None:
    for _ in range(times):
        ctx.gpio.drive(line, True)
        ctx.gpio.drive(line, False)
        ctx.advance(every)


# -- inputs -----------------------------------------------------------------------------------------------------------


def test_an_input_is_read_at_each_edge_with_the_kernels_time_and_once_an_interval() -> None:
    ctx = begin(**DOOR, interval=60)
    assert fields(ctx) == [{"door": True}], "low is active"
    ctx.advance(1.5)
    ctx.gpio.drive(17, True)
    ctx.advance(1)
    ctx.gpio.drive(17, False)
    edges = [(sample.fields["door"], sample.mono_ns) for sample in ctx.samples[1:]]
    assert edges == [(False, 1_500_000_000), (True, 2_500_000_000)]
    ctx.advance(60)
    assert ctx.samples[3].mono_ns is None
    assert len(ctx.samples) == 4


def test_what_is_asked_of_the_kernel() -> None:
    ctx = begin(
        inputs={"door": {"line": "DOOR", "bias": "pull-up", "active_low": True, "debounce": "10ms"}},
        counters={"water": {"line": 27, "debounce": 0.002}},
        outputs={"pump": {"line": 22, "drive": "open-drain", "initial": "on"}, "fan": {"line": 23, "initial": "keep"}},
    )
    door, water, pump, fan = ctx.gpio.lines
    assert (door.line, door.edges, door.bias, door.active_low, door.debounce) == ("DOOR", "both", "pull-up", True, 0.01)
    assert (water.edges, water.debounce, water.output) == ("rising", 0.002, False)
    assert (pump.output, pump.drive, pump.value) == (True, "open-drain", True)
    assert (fan.output, fan.value) == (True, None)


def test_lost_edges_are_told_and_the_level_is_looked_at() -> None:
    ctx = begin(**DOOR)
    ctx.gpio.on_input, wake = None, ctx.gpio.on_input  # the loop is busy
    for number in range(1030):
        ctx.gpio.drive(17, number % 2 == 0)
    ctx.gpio.on_input = wake
    ctx.gpio.drive(17, True)
    (fault,) = ctx.faults
    assert (fault.kind, fault.detail) == ("lost_edges", "door: the kernel had no room for 7")
    assert fields(ctx)[-2:] == [{"door": False}, {"door": False}]
    ctx.gpio.drive(17, False)
    assert len(ctx.faults) == 1
    assert fields(ctx)[-1] == {"door": True}


def test_while_the_outbox_is_full_pulses_are_counted_and_inputs_told_afterwards() -> None:
    ctx = begin(**DOOR, **WATER, interval=10)
    ctx.blocked = True
    before = len(ctx.samples)
    ctx.gpio.drive(17, True)
    pulse(ctx, 5)
    ctx.advance(30)
    assert len(ctx.samples) == before
    ctx.blocked = False
    ctx.advance(10)
    assert fields(ctx)[before] == {"door": False, "water": 0.5, "water_rate": 0.0, "water_lost": 0}


# -- counters ---------------------------------------------------------------------------------------------------------


def test_pulses_become_total_and_rate() -> None:
    ctx = begin(**WATER, interval=10)
    assert fields(ctx) == [{"water": 0.0, "water_rate": 0.0, "water_lost": 0}]
    pulse(ctx, 21, every=0.5)  # two a second: 0.2 L a second, 12 L a minute
    assert fields(ctx)[-1] == {"water": 2.0, "water_rate": 12.0, "water_lost": 0}
    ctx.advance(10)
    assert fields(ctx)[-1]["water"] == 2.1
    assert 0 < fields(ctx)[-1]["water_rate"] < 1, "at most one pulse in the time since the last one"
    ctx.advance(300)
    assert fields(ctx)[-1]["water_rate"] == 0.0
    assert not ctx.faults


def test_a_rain_gauge_a_fan_and_a_meter_that_has_run_before() -> None:
    counters = {
        "rain": {"line": 1, "per_pulse": 0.2794, "unit": "mm", "show": ["total"]},
        "fan": {"line": 2, "show": ["frequency"]},
        "energy": {"line": 3, "per_unit": 1000, "start": 4711.5, "unit": "kWh", "show": ["total", "rate"]},
    }
    ctx = begin(counters=counters, interval=10)
    pulse(ctx, 3, line=1)
    pulse(ctx, 11, every=1 / 50, line=2)
    pulse(ctx, 5, every=1.8, line=3)
    pulse(ctx, 1, every=0.9, line=3)
    told = fields(ctx)[-1]
    assert told == {"rain": 0.8382, "fan_frequency": 0.102041, "energy": 4711.506, "energy_rate": 2.0}


def test_pulses_that_the_kernel_had_no_room_for_are_in_the_total() -> None:
    ctx = begin(**WATER, interval=10)
    ctx.gpio.on_input = None
    pulse(ctx, 2000)
    ctx.lost("stopped")  # where there is no stream, nobody but the driver reads once more
    assert ctx.state == {"water": [2000, 976]}, "what came before the stop is counted too"
    assert [fault.detail for fault in ctx.faults] == ["water: the kernel had no room for 976"]


def test_totals_survive_a_restart_a_loss_and_are_not_written_at_every_pulse() -> None:
    ctx = begin(**WATER, interval=10, save=60)
    writes: list[Any] = []
    save, ctx.save_state = ctx.save_state, lambda state: (writes.append(state), save(state))[1]  # type: ignore[method-assign,func-returns-value]
    pulse(ctx, 100, every=0.5)
    assert not writes
    ctx.advance(600)
    assert writes == [{"water": [100, 0]}], "once, as nothing has changed since"
    ctx.gpio.remove()
    ctx.advance(10)
    assert ctx.losses == ["pinctrl-test is gone: No such device"]
    ctx.reopen()
    ctx.run()
    pulse(ctx)
    ctx.stop()
    assert writes[1:] == [{"water": [101, 0]}]
    again = FakeContext("io")
    again.state = ctx.state
    begin(again, **WATER)
    assert fields(again) == [{"water": 10.1, "water_rate": 0.0, "water_lost": 0}]


@pytest.mark.parametrize("state", [{"water": 5}, {"water": ["1", 2]}, {"water": [1]}, {"other": [1, 2]}])
def test_a_state_that_somebody_else_has_written_counts_from_nothing(state: dict[str, Any]) -> None:
    ctx = FakeContext("io")
    ctx.state = state
    begin(ctx, **WATER)
    assert fields(ctx)[0]["water"] == 0.0


# -- outputs ----------------------------------------------------------------------------------------------------------


def test_an_output_is_set_and_tells_so() -> None:
    ctx = begin(**PUMP)
    assert ctx.set("pump", "on") == [None]
    assert ctx.gpio.level(22)
    assert ctx.set("pump", '{"value": 0}') == [None]
    assert not ctx.gpio.level(22)
    assert fields(ctx) == [{"pump": False}, {"pump": True}, {"pump": False}]
    with pytest.raises(ValueError, match="on or off is due"):
        ctx.set("pump", "50")


def test_a_pulse_ends_by_itself_and_begins_anew_when_told_again() -> None:
    ctx = begin(outputs={"bell": {"line": 5, "active_low": True, "pulse": "500ms"}}, interval=3600)
    assert ctx.gpio.level(5), "off, which is high here"
    ctx.set("bell", "on")
    ctx.advance(0.4)
    ctx.set("bell", "on")
    ctx.advance(0.4)
    assert not ctx.gpio.level(5)
    ctx.advance(0.1)
    assert ctx.gpio.level(5)
    ctx.set("bell", "on")
    ctx.set("bell", "off")
    assert ctx.gpio.level(5)
    ctx.advance(10)
    assert [sample["bell"] for sample in fields(ctx)] == [False, True, True, False, True, False]


@pytest.mark.parametrize(
    ("initial", "on_stop", "found", "levels"),
    [
        ("off", "off", True, (False, False)),
        ("on", "keep", False, (True, True)),
        ("keep", "on", False, (False, True)),
        ("keep", "keep", True, (True, True)),
    ],
)
def test_states_at_start_and_stop(initial: str, on_stop: str, found: bool, levels: tuple[bool, bool]) -> None:
    ctx = FakeContext("io")
    ctx.gpio_levels = {22: found}
    begin(ctx, outputs={"pump": {"line": 22, "initial": initial, "on_stop": on_stop}})
    at_start = ctx.gpio.level(22)
    ctx.stop()
    assert (at_start, ctx.gpio.level(22)) == levels


def test_without_a_broker_for_too_long_an_output_falls_back() -> None:
    outputs: dict[str, dict[str, Any]] = {
        "pump": {"line": 22, "dead_man": "5m"},
        "heater": {"line": 23, "dead_man": 60, "fallback": "on"},
        "lamp": {"line": 24},
    }
    ctx = begin(outputs=outputs, interval=86400)
    for name in outputs:
        ctx.set(name, "on")
    ctx.set("heater", "off")
    ctx.link(False)
    ctx.advance(299)
    ctx.link(True)  # in time for the pump
    ctx.advance(600)
    assert [ctx.gpio.level(line) for line in (22, 23, 24)] == [True, True, True]
    ctx.link(False)
    ctx.advance(300)
    assert [ctx.gpio.level(line) for line in (22, 23, 24)] == [False, True, True]
    ctx.link(True)
    assert not ctx.gpio.level(22), "until the next command"
    assert fields(ctx)[-1] == {"pump": False}


def test_a_chip_that_goes_costs_the_device_and_nothing_else() -> None:
    ctx = begin(**PUMP, interval=10)
    ctx.gpio.remove()
    assert ctx.set("pump", "on") == []
    assert ctx.losses == ["pinctrl-test is gone: No such device"]
    ctx.reopen()
    assert ctx.set("pump", "on") == [None]


# -- configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({}, "a device has 1 to 64 inputs, counters and outputs"),
        ({"inputs": {f"i{n}": {"line": n} for n in range(65)}}, "a device has 1 to 64"),
        ({**DOOR, "outputs": {"door": {"line": 1}}}, "two channels would be called door"),
        ({**WATER, "inputs": {"water_lost": {"line": 1}}}, "two channels would be called water_lost"),
        ({**DOOR, "outputs": {"pump": {"line": 17}}}, "line 17 is there twice"),
        ({"inputs": {"a": {"line": -1}}}, "greater than or equal to 0"),
        ({"inputs": {"a b": {"line": 1}}}, "a b"),
        ({"inputs": {"a": {"line": 1, "pull": "up"}}}, "Extra inputs are not permitted"),
        ({"counters": {"a": {"line": 1, "show": []}}}, "at least 1"),
    ],
)
def test_what_is_wrong_is_said(config: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Gpio.Config(name="io", driver="gpio", chip="x", **config)
    assert why in str(caught.value)


def test_what_it_is_and_where_it_may_come_from() -> None:
    ctx = begin(**DOOR, **WATER, **PUMP)
    assert [channel.name for channel in ctx.driver.channels] == [*fields(ctx)[0]]  # type: ignore[union-attr]
    assert [output.name for output in ctx.driver.outputs] == ["pump"]  # type: ignore[union-attr]
    config = Gpio.Config(name="io", driver="gpio", chip="pinctrl-rp1", **DOOR)
    assert Gpio.shares(config) is None
    assert Gpio.appears(config) == "/dev/gpiochip*"
    assert Gpio.appears(config.model_copy(update={"chip": "/dev/gpiochip3"})) == "/dev/gpiochip3"
    with pytest.raises(PortError):
        FakeContext(ports={"pinctrl-test": PortError("missing", "no chip")}).start(Gpio, chip="pinctrl-test", **PUMP)


def test_a_recording_of_edges_is_replayed() -> None:
    shown: list[str] = []
    config = Gpio.Config(name="io", driver="gpio", chip="x", inputs={"door": {"line": 5, "active_low": True}})
    replay = Replay(Gpio, config, shown.append)
    replay.begin()
    edges = [EVENT.pack(10**9 * number, 2 - number % 2, 5, number, number) for number in (1, 2, 3)]
    replay.feed(Entry(0.5, "rx", edges[0] + edges[1]))
    replay.feed(Entry(1.0, "lost"))
    replay.feed(Entry(2.0, "opened"))
    replay.feed(Entry(3.0, "rx", EVENT.pack(10**10, 2, 5, 1, 1)))
    replay.end()
    values = [said["fields"]["door"] for said in map(json.loads, shown)]
    assert values == [True, True, False, True, False], "the level at each opening, and each edge"
