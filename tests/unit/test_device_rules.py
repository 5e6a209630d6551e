"""Rules at work: between a driver and the numbers of its readings, on the real event manager and a manual clock."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from agent.clock import Clock, ClockSettings
from agent.context import DeviceContext
from agent.driver import Channel, DeviceConfig, Driver, Fault, Port, Sample
from agent.events import EventManager, ManualClock
from agent.hotplug import PathWatch
from agent.model import Reading
from agent.rules_settings import RuleSettings
from agent.supervisor import Supervisor

SECOND = 1_000_000_000


class Probe(Driver):
    """Gives what the test says."""

    channels = (Channel("t", "°C", -40, 85),)

    def start(self, port: Port | None) -> None: ...


class Bench:
    """One device with rules."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.manager = EventManager(clock=self.clock, slow_after=5.0, hang_after=60.0)
        self.readings: list[Reading] = []
        self.order: list[str] = []
        self.seq = 0
        self.supervisor = Supervisor(
            self.manager,
            Clock(
                ClockSettings(trust="always"),
                mono_ns=lambda: round(self.manager.now() * 1e9),
                wall_now_ns=lambda: round(self.manager.now() * 1e9) + 1_700_000_000 * SECOND,  # 20 s into a minute
            ),
            sink=self._sink,
            next_seq=self._next,
            on_state=lambda _, online: self.order.append("online" if online else "offline"),
            paths=PathWatch(),
            rng=random.Random(1),
        )

    def _sink(self, readings: Sequence[Reading]) -> None:
        self.readings += readings
        self.order += [reading.body.decode() for reading in readings]

    def _next(self, _device: str) -> int:
        self.seq += 1
        return self.seq

    def start(self, **rules: Any) -> None:
        settings = RuleSettings(**rules) if rules else None
        self.supervisor.add(Probe, DeviceConfig(name="probe", driver="probe", rules=settings))
        self.supervisor.start()
        self.advance(0)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        while self.manager.run_once(timeout=0):
            pass

    @property
    def ctx(self) -> Any:
        driver = self.supervisor.devices["probe"]._driver
        assert driver is not None
        return driver.ctx

    def emit(self, *values: Any) -> None:
        self.ctx.emit(*(value if isinstance(value, Fault) else Sample({"t": value}) for value in values))

    @property
    def report(self) -> dict[str, Any]:
        return self.supervisor.report()["probe"]  # type: ignore[no-any-return]


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    with bench.manager:
        yield bench
        bench.supervisor.stop(lambda: None)


def test_a_device_without_rules_has_none_of_it_on_its_way(bench: Bench) -> None:
    bench.start()
    assert type(bench.ctx) is DeviceContext
    assert "rules" not in bench.report


def test_a_table_that_says_nothing_is_no_rule(bench: Bench) -> None:
    bench.supervisor.add(Probe, DeviceConfig(name="probe", driver="probe", rules=RuleSettings()))
    bench.supervisor.start()
    bench.advance(0)
    assert type(bench.ctx) is DeviceContext


def test_numbers_are_given_to_what_comes_out_and_faults_pass(bench: Bench) -> None:
    bench.start(on_change=True)
    bench.emit(1, 1, Fault("syntax", "noise"), 1, 2, 2, 3)
    assert bench.order == ["online", '{"t":1}', '{"t":2}', '{"t":3}']
    assert [reading.seq for reading in bench.readings] == [1, 2, 3]
    assert bench.report["faults"]["syntax"]["count"] == 1
    assert bench.report["readings"] == 3
    assert bench.report["rules"] == {
        "taken": 6,
        "made": 0,
        "passed": 3,
        "suppressed": 3,
        "merged": 0,
        "refused": 0,
        "held": 0,
    }


def test_no_two_readings_share_a_time(bench: Bench) -> None:
    bench.start(on_change=True, max_interval=10)
    bench.emit(1, 2, 3)
    bench.emit(4)
    stamps = [reading.mono_ns for reading in bench.readings]
    assert stamps == [stamps[0] + 1000 * number for number in range(4)]


def test_what_is_held_back_goes_out_by_a_timer_with_its_own_time(bench: Bench) -> None:
    bench.start(min_interval=10)
    begin = bench.clock.now()
    bench.emit(1)
    bench.advance(4)
    bench.emit(2)
    bench.advance(4)
    bench.emit(3)
    assert bench.report["rules"]["held"] == 1
    bench.advance(1.9)
    assert len(bench.readings) == 1
    bench.advance(0.2)
    assert bench.order[1:] == ['{"t":1}', '{"t":3}']
    assert bench.readings[1].mono_ns == round((begin + 8) * 1e9)


def test_a_timer_that_is_too_early_waits_on(bench: Bench) -> None:
    bench.start(on_change=True, max_interval=10)
    bench.emit(1, 1)  # a timer for 10 s
    bench.advance(9)
    bench.emit(2, 2)  # now for 19 s
    bench.advance(2)
    assert len(bench.readings) == 2
    bench.advance(8.1)
    assert len(bench.readings) == 3
    assert not [event for event in bench.manager.stats().events if event.name == "probe.rules" and event.errors]


def test_a_timer_moves_forward_for_what_is_due_sooner(bench: Bench) -> None:
    bench.start(on_change=True, min_interval=1, max_interval=60)
    bench.emit(1, 1)  # due at 60 s
    bench.advance(0.5)
    bench.emit(2)  # news: due at 1 s
    bench.advance(0.6)
    assert len(bench.readings) == 2


def test_a_window_is_a_minute_of_the_wall_clock(bench: Bench) -> None:
    bench.start(window=60)
    begin = bench.clock.now()
    bench.advance(-(begin + 20) % 60 + 1)  # a second into a minute
    opened = bench.clock.now()
    bench.emit(1, 2)
    bench.advance(58.9)
    bench.emit(6)
    assert not bench.readings
    bench.advance(0.2)
    assert bench.order[1:] == ['{"t":3.0}']
    assert bench.readings[0].mono_ns == round((opened + 59) * 1e9)


def test_a_window_goes_on_over_a_loss_and_ends_without_its_device(bench: Bench) -> None:
    bench.start(window=3600)
    bench.emit(1)
    bench.ctx.lost("unplugged")
    assert not bench.readings
    bench.advance(1)
    assert bench.report["openings"] == 2
    bench.emit(3)
    bench.ctx.lost("unplugged")
    bench.advance(3600)
    assert [reading.body for reading in bench.readings] == [b'{"t":2.0}']


@pytest.mark.parametrize(("rules", "last"), [({"min_interval": 60}, '{"t":3}'), ({"window": 3600}, '{"t":2.0}')])
def test_a_clean_stop_publishes_what_is_held_before_the_device_is_offline(
    bench: Bench, rules: dict[str, Any], last: str
) -> None:
    bench.start(**rules)
    bench.emit(1, 2, 3)
    done: list[None] = []
    bench.supervisor.stop(lambda: done.append(None))
    bench.advance(0)
    assert done
    assert bench.order[-2:] == [last, "offline"]


def test_a_stop_while_the_device_is_away_publishes_it_too(bench: Bench) -> None:
    bench.start(window=3600)
    bench.emit(1)
    bench.ctx.lost("unplugged")
    bench.supervisor.stop(lambda: None)
    bench.advance(0)
    assert [reading.body for reading in bench.readings] == [b'{"t":1.0}']


def test_the_drivers_own_limits(bench: Bench) -> None:
    bench.start(check_range=True)
    bench.emit(86, 85)
    assert bench.order == ["online", '{"t":85}']
    assert bench.report["faults"]["range"] == {"count": 1, "last": "t: 86 °C is above 85 °C", "bytes": ""}


def test_what_has_no_json_form_is_a_fault_as_ever(bench: Bench) -> None:
    bench.start(on_change=True)
    bench.emit(float("nan"), 1)
    assert bench.order == ["online", '{"t":1}']
    assert bench.report["faults"]["number"]["count"] == 1


def test_the_channels_of_the_device_are_those_that_are_published(bench: Bench) -> None:
    bench.start(window=60, aggregate=["min", "max"])
    assert [channel.name for channel in bench.supervisor.devices["probe"].channels] == ["t_min", "t_max"]
