"""A reading that somebody asks for: one round for all who ask, what they are told, and what each driver asks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
from test_air_drivers import CO2_READING, PMS_ASK, SDS_READING
from test_air_drivers import started as air
from test_d0 import READING, asked, block
from test_device_rules import Bench
from test_exec import FakeChild
from test_exec import started as running
from test_modbus import Bus

from agent.codec import Topics
from agent.commands import Commands
from agent.control import Answer
from agent.device_outputs import ANSWER_TIMEOUT, MOST_PENDING
from agent.device_reads import MOST_FAULTS, MOST_READINGS
from agent.driver import DeviceConfig, Done, Driver, Fault, Port, Sample
from agent.driver_worker import WorkerConfig, WorkerDriver
from agent.requests import Operation, RequestError
from agent.requests_operations import LONGEST_READ, operations
from agent.rules_settings import RuleSettings
from agent.testing import FakeContext
from drivers.host import Host
from drivers.mhz19 import Mhz19
from drivers.pms5003 import Pms5003
from drivers.sds011 import Sds011

# ---- the device


class Asked(Driver):
    """Is asked, and answers when the test says so."""

    asked = 0

    def start(self, port: Port | None) -> None: ...

    def read_now(self, done: Done) -> None:
        self.asked += 1
        self.wanted.by(done)


class Asking(Bench):
    """One device of that driver, and what those are told who ask for a reading of it."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[dict[str, Any] | None, str | None]] = []

    def start(self, driver: type[Driver] = Asked, **rules: Any) -> None:
        settings = RuleSettings(**rules) if rules else None
        self.supervisor.add(driver, DeviceConfig(name="probe", driver="probe", rules=settings))
        self.supervisor.start()
        self.advance(0)

    def read(self, within: float = ANSWER_TIMEOUT) -> None:
        self.supervisor.devices["probe"].read(within, lambda came, problem: self.told.append((came, problem)))

    @property
    def driver(self) -> Asked:
        return cast(Asked, self.supervisor.devices["probe"]._driver)


@pytest.fixture
def bench() -> Iterator[Asking]:
    bench = Asking()
    with bench.manager:
        yield bench
        bench.supervisor.stop(lambda: None)


def test_all_who_ask_meanwhile_get_the_readings_of_one_round(bench: Asking) -> None:
    bench.start()
    bench.emit(1)  # before it was asked for
    bench.read()
    bench.read()
    bench.emit(2, Fault("timeout", "flow"), 3, float("nan"))
    assert bench.told == []
    bench.driver.wanted.over()
    faults = ["timeout: flow", "number: t is nan, which has no JSON form"]
    assert bench.told == [({"readings": [{"t": 2}, {"t": 3}], "faults": faults}, None)] * 2
    assert bench.driver.asked == 1
    assert [reading.body for reading in bench.readings] == [b'{"t":1}', b'{"t":2}', b'{"t":3}'], "as any others"
    bench.emit(4)
    assert bench.ctx.tap is None
    bench.read()
    bench.driver.wanted.over()
    assert bench.told[2:] == [(None, "it gave no reading")]


def test_rules_hold_back_what_is_published_not_what_was_asked_for(bench: Asking) -> None:
    bench.start(on_change=True)
    bench.emit(1)
    bench.read()
    bench.emit(1)
    bench.driver.wanted.over()
    assert bench.told == [({"readings": [{"t": 1}]}, None)]
    assert len(bench.readings) == 1


def test_who_waits_too_long_is_told_and_the_next_asks_anew(bench: Asking) -> None:
    bench.start()
    bench.read(5)
    bench.advance(4)
    bench.read(5)
    bench.advance(1)
    late = "probe has not answered within 5 s; what comes later is published all the same"
    assert bench.told == [(None, late)]
    bench.advance(4)
    assert bench.told == [(None, late)] * 2
    assert bench.ctx.tap is None
    bench.read()
    assert bench.driver.asked == 2
    bench.emit(7)
    bench.driver.wanted.over()
    bench.driver.wanted.over()
    assert bench.told[2:] == [({"readings": [{"t": 7}]}, None)]


def test_a_device_that_is_away_full_or_lost_meanwhile_says_so(bench: Asking) -> None:
    bench.start()
    device = bench.supervisor.devices["probe"]
    bench.supervisor.block(True)
    bench.read()
    bench.supervisor.block(False)
    bench.read()
    device.lost("unplugged")
    bench.read()
    assert [problem for _, problem in bench.told] == [
        "the outbox is full, and probe is not asked until it takes readings again",
        "probe is waiting: unplugged",
        "probe is waiting: unplugged",
    ]
    bench.advance(1)
    bench.read()
    bench.emit(1)
    bench.driver.wanted.over()
    assert bench.told[3:] == [({"readings": [{"t": 1}]}, None)]


def test_what_waits_and_what_comes_is_bounded(bench: Asking) -> None:
    bench.start()
    for _ in range(MOST_PENDING + 1):
        bench.read()
    assert bench.told == [(None, "32 wait for a reading of it already; ask again when one is answered")]
    for number in range(MOST_READINGS + 1):
        bench.emit(number, Fault("syntax", str(number)))
    bench.driver.wanted.over()
    came = bench.told[1][0]
    assert came is not None
    assert len(came["readings"]) == MOST_READINGS
    assert len(came["faults"]) == MOST_FAULTS
    assert came["faults"][-1] == f"syntax: {MOST_READINGS}"


def test_a_driver_that_asks_for_nothing_and_one_with_a_defect(bench: Asking) -> None:
    class Defect(Asked):
        def read_now(self, done: Done) -> None:
            if not self.asked:
                Driver.read_now(self, done)
                self.asked = 1
            else:
                raise ZeroDivisionError("oh")

    bench.start(Defect)
    bench.read()
    assert bench.told == [(None, "its driver asks for nothing; readings come by themselves")]
    bench.read()
    assert bench.told[1:] == [(None, "probe is waiting: defect in driver probe: ZeroDivisionError: oh")]


# ---- the request


def read_of(bench: Asking) -> Operation:
    nothing: Any = None
    commands = Commands(Topics("a"), {}, subscribe=lambda _: None, answer=lambda _topic, _payload: None)
    made = operations("a", bench.manager, dict, bench.supervisor.devices, commands, nothing, lambda: None)
    return made["read"]


def test_the_request_names_the_device_and_how_long_it_waits(bench: Asking) -> None:
    bench.start()
    read = read_of(bench)
    answers: list[tuple[Any, str | None]] = []

    def answer(data: Any, problem: str | None) -> None:
        answers.append((data, problem))

    told: Answer = answer
    read({"device": "probe", "within": "2m"}, told)
    bench.advance(119)
    bench.emit(5)
    bench.driver.wanted.over()
    assert answers == [({"device": "probe", "readings": [{"t": 5}]}, None)]
    read({"device": "probe"}, told)
    bench.advance(ANSWER_TIMEOUT)
    assert answers[1][0] == {"device": "probe"}
    assert "within 10 s" in (answers[1][1] or "")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({}, "device is due"),
        ({"device": 1}, "device is due"),
        ({"device": "other"}, "there is no device other"),
        ({"device": "probe", "within": "soon"}, "within: "),
        ({"device": "probe", "within": "0s"}, "within is more than nothing"),
        ({"device": "probe", "within": LONGEST_READ + 1}, "300 s at most"),
        ({"device": "probe", "channel": "t"}, "unknown: channel; there are device, within"),
    ],
)
def test_what_the_request_may_not_say(bench: Asking, arguments: dict[str, Any], why: str) -> None:
    bench.start()
    with pytest.raises(RequestError, match=why):
        read_of(bench)(arguments, lambda _data, _problem: pytest.fail("it was answered"))
    assert not bench.driver.asked


# ---- drivers


class Answers(list[str | None]):
    """What ``done`` was told."""

    def of(self, ctx: FakeContext) -> Answers:
        """Ask its driver, and let happen what then happens at once."""
        ctx.after(1e-6, ctx.driver.read_now, self.append)
        ctx.advance(1e-6)
        return self


def test_a_polled_device_is_asked_at_once_and_a_question_under_way_will_do() -> None:
    ctx = air(Mhz19, interval=60, answer_timeout=1)
    ctx.run()
    answers = Answers().of(ctx)
    assert ctx.port.written.hex() == "ff0186000000000079", "the first question is under way"
    assert answers == []
    ctx.port.feed(CO2_READING)
    assert answers == [None]
    answers.of(ctx)
    assert ctx.port.written.hex() == "ff0186000000000079" * 2
    ctx.port.feed(CO2_READING)
    assert answers == [None, None]
    assert len(ctx.samples) == 2
    answers.of(ctx)
    ctx.advance(1)
    assert answers == [None] * 3
    assert ctx.faults == [Fault("timeout", "no answer within 1 s")]


def test_what_sends_by_itself_or_sleeps_is_not_asked() -> None:
    for driver in (Sds011, Pms5003):
        ctx = air(driver)
        ctx.run()
        written = ctx.port.written
        assert Answers().of(ctx) == ["its driver asks for nothing; readings come by themselves"]
        assert ctx.port.written == written
    for driver, mode in ((Sds011, "query"), (Pms5003, "passive")):
        ctx = air(driver, mode=mode, sleep=True, interval=120)
        assert "it sleeps between its readings" in str(Answers().of(ctx)[0])
    ctx = air(Pms5003, mode="passive", interval=10, answer_timeout=1)
    ctx.advance(1)
    ctx.sent()
    Answers().of(ctx)
    assert ctx.sent() == PMS_ASK
    ctx = air(Sds011, mode="query", interval=10)
    ctx.run()
    answers = Answers().of(ctx)
    ctx.port.feed(SDS_READING)
    assert answers == [None]


class Pieces(WorkerDriver):
    """Two sensors."""

    def find(self) -> list[str]:
        return ["a", "b"]

    def ask(self, piece: str) -> int:
        if piece == "b":
            raise OSError(5, "Input/output error")
        return 1

    def answered(self, piece: str, answer: Any) -> list[Sample | Fault]:
        return [Sample({piece: answer})]


def test_a_round_of_workers_is_over_when_each_piece_has_answered() -> None:
    ctx = FakeContext("d", work="deferred")
    Pieces.Config = WorkerConfig
    ctx.start(Pieces, interval=60)
    ctx.do_work()
    ctx.run()
    ctx.do_work()
    before = len(ctx.emitted)
    answers = Answers().of(ctx)
    ctx.do_work(2)
    assert answers == []
    ctx.do_work()
    assert answers == [None]
    assert ctx.emitted[before:] == [Sample({"a": 1}), Fault("unreadable", "b: Input/output error")]
    rejected = FakeContext("d", work="rejected")
    rejected.driver = rejected.start(Pieces, interval=60)
    rejected.run()
    assert Answers().of(rejected) == [None]


def test_the_host_gives_one_more_reading_with_all_its_parts() -> None:
    ctx = FakeContext("host")
    ctx.start(Host, interval=60, network=[])
    ctx.run()
    assert Answers().of(ctx) == [None]
    assert len(ctx.samples) == 2
    assert "disk_root_percent" in ctx.samples[1].fields
    slow = FakeContext("host", work="deferred")
    slow.start(Host, interval=60, network=[])
    slow.do_work(1)
    slow.run()
    answers = Answers().of(slow)
    slow.do_work(1)
    assert answers == [], "the disk is to come"
    slow.do_work()
    assert answers == [None]
    assert len(slow.samples) == 1


def test_a_bus_asks_all_units_that_are_well_and_is_over_when_none_is_left() -> None:
    bus = Bus()
    bus.alive = {1, 3}
    bus.ctx.advance(3)  # b counts as in trouble, then as dead
    bus.asked()
    bus.readings()
    bus.ctx.advance(0.4)
    bus.asked()
    bus.readings()
    answers = Answers().of(bus.ctx)
    bus.ctx.advance(0.05)
    assert answers == [None]
    assert bus.asked() == [1, 3]
    assert bus.readings() == [{"a_online": True, "a_x": 1}, {"c_online": True, "c_x": 3}]
    bus.alive = set()
    bus.ctx.advance(5)
    assert Answers().of(bus.ctx) == ["none of its units answers; they are asked again by themselves"]


def test_a_read_on_a_full_bus_is_no_overrun_of_its_configuration() -> None:
    bus = Bus(interval=0.05, silence=0.015)  # a round takes 45 ms
    bus.ctx.advance(0.06)
    for _ in range(3):
        Answers().of(bus.ctx)
        bus.ctx.advance(0.05)
    assert not bus.ctx.faults


def test_a_meter_is_asked_for_one_more_readout() -> None:
    ctx = asked()
    ctx.port.feed(b"/ISk5MT174-00", b"02\r\n")
    ctx.advance(0.5)
    answers = Answers().of(ctx)
    assert ctx.port.written.count(b"/?!\r\n") == 1, "one is under way"
    ctx.port.feed(block())
    assert answers == [None]
    answers.of(ctx)
    assert ctx.port.written.count(b"/?!\r\n") == 2
    ctx.port.feed(b"/ISk5MT174-0002\r\n")
    ctx.advance(0.5)
    ctx.port.feed(block())
    assert answers == [None, None]
    assert ctx.emitted == [READING, READING]
    assert Answers().of(asked(mode="push")) == ["its driver asks for nothing; readings come by themselves"]


def test_a_command_is_run_once_more() -> None:
    ctx = running(FakeChild(), interval=60)
    answers = Answers().of(ctx)
    ctx.port.feed(b"1")
    cast(FakeChild, ctx.port).end()
    assert answers == [None]
    assert not ctx.faults, "one was under way, which is no fault"
    ctx.ports["gauge"] = FakeChild()
    answers.of(ctx)
    ctx.port.feed(b"2")
    cast(FakeChild, ctx.port).end()
    assert answers == [None, None]
    assert ctx.samples == [Sample({"value": 1.0}), Sample({"value": 2.0})]
    on = running(FakeChild())
    assert Answers().of(on) == ["its driver asks for nothing; readings come by themselves"]
