"""Devices are opened, opened again and stopped; a bad one never touches the others."""

from __future__ import annotations

import errno
import os
import random
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest

from agent import context_stream
from agent.clock import Clock
from agent.context_stream import QUEUED_BYTES, SLOW_FEEDS
from agent.device import BACKOFF_MOST, CRASHES, OPEN_TIMEOUT, QUARANTINE, SETTLED
from agent.driver import (
    Channel,
    DeviceConfig,
    Done,
    Driver,
    Fault,
    Output,
    Parser,
    Port,
    PortError,
    Sample,
    SerialConfig,
    StreamDriver,
    Value,
)
from agent.errors import DeviceLost
from agent.events import EventManager, ManualClock, WorkRejected
from agent.hotplug import PathWatch
from agent.model import Reading
from agent.supervisor import Supervisor

TURNS = 2000


class Line:
    """A port on a socket pair: the test holds the device's end."""

    def __init__(self) -> None:
        ours, self.device = socket.socketpair()
        self._socket = ours
        ours.setblocking(False)
        self.name = "line"
        self.on_blocked: Callable[[bool], object] | None = None
        self.closed = 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> bytes:
        try:
            data = self._socket.recv(65536)
        except BlockingIOError:
            return b""
        if not data:
            raise DeviceLost("hung up")
        return data

    def write(self, data: bytes) -> None:
        self._socket.sendall(data)

    def flush(self) -> None: ...

    def close(self) -> None:
        self.closed += 1
        self._socket.close()


class Lines(Parser):
    def __init__(self, slow: Callable[[], object] = lambda: None) -> None:
        self._rest = b""
        self._slow = slow

    def feed(self, data: bytes) -> Iterable[Sample | Fault]:
        self._slow()
        *lines, self._rest = (self._rest + data).split(b"\n")
        for text in lines:
            if text == b"boom":
                raise ZeroDivisionError("a defect")
            yield Fault("syntax", "noise", text) if text.startswith(b"?") else Sample({"text": text.decode()})

    def end(self) -> Iterable[Sample | Fault]:
        if self._rest:
            yield Fault("cut", "half a line", self._rest)


class Bench:
    """A supervisor on a manual clock, and the ports that its devices will get, in order."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.manager = EventManager(
            clock=self.clock, slow_after=5.0, hang_after=60.0, on_callback_error=self._failed, workers=(2, 4)
        )
        self.readings: list[Reading] = []
        self.states: list[tuple[str, bool]] = []
        self.order: list[str] = []
        self._seq = 0
        self.supervisor = Supervisor(
            self.manager,
            Clock(mono_ns=lambda: int(self.manager.now() * 1e9) + 1),
            sink=self._sink,
            next_seq=self._next,
            on_state=self._state,
            paths=PathWatch(),
            rng=random.Random(1),
        )
        self.ports: dict[str, list[Any]] = {}
        self.drivers: list[Driver] = []

    def _sink(self, readings: Sequence[Reading]) -> None:
        self.readings += readings
        self.order += ["reading"] * len(readings)

    def _state(self, name: str, online: bool) -> None:
        self.states.append((name, online))
        self.order.append("online" if online else "offline")

    def _next(self, _device: str) -> int:
        self._seq += 1
        return self._seq

    def _failed(self, event: Any, error: BaseException) -> None:
        if not self.supervisor.callback_failed(event, error):
            raise error

    def add(self, name: str, *ports: Any, slow: Callable[[], object] = lambda: None, **attributes: Any) -> None:
        """A stream device that gets these ports one after another; an exception in their place is raised."""
        bench, left = self, list(ports)

        class Text(StreamDriver):
            channels = (Channel("text"),)

            def __init__(self, config: Any, ctx: Any) -> None:
                super().__init__(config, ctx)
                bench.drivers.append(self)

            def parser(self) -> Parser:
                return Lines(slow)

            def open(self) -> Port | None:
                port = left.pop(0) if left else PortError("missing", "no more ports")
                if isinstance(port, BaseException):
                    raise port
                return port() if callable(port) else port

        for key, value in attributes.items():
            setattr(Text, key, value)
        self.supervisor.add(Text, DeviceConfig(name=name, driver="text"))

    def until(self, condition: Callable[[], object]) -> None:
        """Turn the loop, waiting for workers where it must, until the condition holds. The clock stands."""
        for _ in range(TURNS):
            if condition():
                return
            self.manager.run_once(timeout=0.05)
        raise AssertionError(f"never came: {self.report()}")

    def settle(self) -> None:
        while self.manager.run_once(timeout=0):
            pass

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.settle()

    def state(self, name: str) -> str:
        return str(self.supervisor.devices[name].state)

    def report(self) -> dict[str, Any]:
        return self.supervisor.report()

    def texts(self) -> list[str]:
        return [reading.body.decode().split('"')[3] for reading in self.readings]

    def start(self) -> None:
        self.supervisor.start()
        self.manager.run_once(timeout=0)  # each device is started by a callback of its own


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    with bench.manager:
        yield bench
        bench.supervisor.stop(lambda: None)


def online(bench: Bench, name: str) -> Callable[[], bool]:
    return lambda: bench.state(name) == "online"


def test_lines_become_stamped_readings_in_order(bench: Bench) -> None:
    line = Line()
    bench.add("weather", line)
    bench.start()
    bench.until(online(bench, "weather"))
    line.device.sendall(b"one\n?noise\ntwo\nthr")
    bench.until(lambda: len(bench.readings) == 2)
    line.device.sendall(b"ee\n")
    bench.until(lambda: len(bench.readings) == 3)
    assert bench.texts() == ["one", "two", "three"]
    assert [r.seq for r in bench.readings] == [1, 2, 3]
    assert {r.device for r in bench.readings} == {"weather"}
    assert bench.states == [("weather", True)]
    report = bench.report()["weather"]
    assert report["readings"] == 3
    assert report["faults"]["syntax"] == {"count": 1, "last": "noise", "bytes": "?noise"}


def test_a_device_that_is_missing_at_start_is_taken_when_it_comes(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    line = Line()
    bench.add("weather", PortError("missing", "no /dev/x", "plug it in"), line)
    bench.start()
    bench.until(lambda: bench.state("weather") == "waiting")
    assert bench.report()["weather"]["reason"] == "no /dev/x; plug it in"
    assert 'device.unavailable device=weather reason="no /dev/x; plug it in"' in caplog.text
    assert bench.states == []
    bench.clock.advance(1.0)
    bench.until(online(bench, "weather"))
    assert bench.report()["weather"]["reason"] is None


def test_unplugged_and_back(bench: Bench) -> None:
    first, second = Line(), Line()
    bench.add("weather", first, second)
    bench.start()
    bench.until(online(bench, "weather"))
    first.device.sendall(b"one\ntw")
    bench.until(lambda: bench.readings)
    first.device.close()
    bench.until(lambda: bench.state("weather") == "waiting")
    assert first.closed
    assert bench.report()["weather"]["reason"] == "hung up"
    assert bench.report()["weather"]["faults"]["cut"]["count"] == 1
    bench.clock.advance(1.0)
    bench.until(online(bench, "weather"))
    second.device.sendall(b"three\n")
    bench.until(lambda: len(bench.readings) == 2)
    assert bench.texts() == ["one", "three"]  # the half line did not join with what the new port gave
    assert bench.states == [("weather", True), ("weather", False), ("weather", True)]
    assert len(bench.drivers) == 1


def test_the_back_off_doubles_is_jittered_and_capped(bench: Bench) -> None:
    bench.add("weather")
    bench.start()
    delays = []
    for _ in range(12):
        bench.until(lambda: bench.state("weather") == "waiting")
        device = bench.supervisor.devices["weather"]
        retry = device._retry
        assert retry is not None
        waited = 0.0
        while retry.active:
            bench.clock.advance(0.01)
            waited += 0.01
            bench.manager.run_once(timeout=0)
        delays.append(waited)
    for number, delay in enumerate(delays):
        most = min(BACKOFF_MOST, 0.25 * 2**number)
        assert 0.75 * most - 0.02 <= delay <= most + 0.02
    assert len({round(d, 2) for d in delays[-4:]}) > 1  # jitter is left at the cap


def test_a_path_that_appears_is_opened_at_once(bench: Bench) -> None:
    line = Line()
    bench.add("weather", *[PortError("missing", "no /dev/x")] * 8, line)
    bench.start()
    for _ in range(7):
        bench.until(lambda: bench.state("weather") == "waiting")
        bench.clock.advance(BACKOFF_MOST)
        bench.until(lambda: bench.state("weather") != "waiting")
    bench.until(lambda: bench.state("weather") == "waiting")  # the next attempt by itself is half a minute away
    bench.advance(1.0)
    bench.supervisor.devices["weather"].appeared()
    bench.clock.advance(0.001)
    bench.until(online(bench, "weather"))


def test_a_path_that_appears_while_an_attempt_fails_is_not_missed(bench: Bench) -> None:
    line = Line()

    def fail() -> Port:
        bench.supervisor.devices["weather"].appeared()
        raise PortError("missing", "no /dev/x")

    bench.add("weather", PortError("missing", "gone"), PortError("missing", "gone"), fail, line)
    bench.start()
    for _ in range(2):
        bench.until(lambda: bench.state("weather") == "waiting")
        bench.clock.advance(1.0)
        bench.until(lambda: bench.state("weather") != "waiting")
    bench.until(lambda: bench.state("weather") == "waiting")
    bench.clock.advance(0.11)  # far less than the third back-off
    bench.until(online(bench, "weather"))


def test_a_flapping_device_keeps_its_back_off(bench: Bench) -> None:
    lines = [Line() for _ in range(4)]
    bench.add("weather", *lines)
    bench.start()
    for line in lines[:3]:
        bench.until(online(bench, "weather"))
        line.device.close()
        bench.until(lambda: bench.state("weather") == "waiting")
        bench.clock.advance(0.25 * 8)
    bench.until(online(bench, "weather"))
    assert bench.supervisor.devices["weather"]._failures == 3
    bench.clock.advance(SETTLED + 1)
    lines[3].device.close()
    bench.until(lambda: bench.state("weather") == "waiting")
    assert bench.supervisor.devices["weather"]._failures == 1


def test_a_defective_driver_goes_to_quarantine_alone(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    good, bad = Line(), [Line() for _ in range(CRASHES + 1)]
    bench.add("good", good)
    bench.add("bad", *bad)
    bench.start()
    for line in bad[:CRASHES]:
        bench.until(online(bench, "bad"))
        line.device.sendall(b"boom\n")
        bench.until(lambda: bench.state("bad") in ("waiting", "quarantined"))
        assert line.closed
        bench.clock.advance(BACKOFF_MOST)
    assert bench.state("bad") == "quarantined"
    assert "ZeroDivisionError: a defect" in bench.report()["bad"]["reason"]
    assert sum("device.quarantined" in r.message for r in caplog.records) == 1
    assert len(bench.drivers) == 1 + CRASHES  # a crashed driver is made anew
    good.device.sendall(b"still here\n")
    bench.until(lambda: bench.readings)
    assert bench.texts() == ["still here"]
    bench.clock.advance(QUARANTINE)
    bench.until(online(bench, "bad"))


@pytest.mark.parametrize("attribute", ["start", "__init__", "open"])
def test_a_driver_may_fail_anywhere(bench: Bench, attribute: str) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("defect")

    bench.add("bad", Line(), **{attribute: fail})
    bench.add("good", Line())
    bench.start()
    bench.until(lambda: bench.state("bad") == "waiting")
    bench.until(online(bench, "good"))
    assert "RuntimeError: defect" in bench.report()["bad"]["reason"]


def test_a_device_without_a_port(bench: Bench) -> None:
    class Host(Driver):
        def start(self, port: Port | None) -> None:
            assert port is None
            self.ctx.every(10.0, self.collect)

        def collect(self) -> None:
            self.ctx.submit(lambda: {"load": 0.5}, on_done=lambda fields: self.ctx.emit(Sample(fields)))

    bench.supervisor.add(Host, DeviceConfig(name="host", driver="host"))
    bench.start()
    assert bench.state("host") == "online"
    bench.clock.advance(10.0)
    bench.until(lambda: bench.readings)
    bench.clock.advance(10.0)
    bench.until(lambda: len(bench.readings) == 2)
    assert bench.readings[0].body == b'{"load":0.5}'


def test_full_workers_delay_a_device_and_are_no_defect_of_its_driver(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise WorkRejected("1000 pieces of work wait")

    class Host(Driver):
        def start(self, port: Port | None) -> None:  # noqa: ARG002
            self.ctx.every(1.0, self.collect)

        def collect(self) -> None:
            self.ctx.submit(lambda: None)

    bench.supervisor.add(Host, DeviceConfig(name="host", driver="host"))
    bench.start()
    monkeypatch.setattr(bench.manager, "execute_work", full)
    for _ in range(CRASHES + 1):
        bench.advance(1.0)
        assert bench.state("host") == "waiting"
        assert bench.report()["host"]["reason"] == "1000 pieces of work wait"
        bench.advance(BACKOFF_MOST)
        assert bench.state("host") == "online"
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_port_that_cannot_be_watched_for_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError(errno.EMFILE, "too many open files")

    bench.add("weather", Line(), shares=classmethod(lambda _cls, _config: "/dev/ttyUSB0"))
    assert bench.supervisor.hotplug_degraded is None
    monkeypatch.setattr("agent.hotplug.Inotify", refuse)
    bench.start()
    assert "max_user_instances" in str(bench.supervisor.hotplug_degraded)
    bench.until(online(bench, "weather"))


def test_what_has_no_json_form_is_a_fault_and_nothing_else_is_lost(bench: Bench) -> None:
    class Odd(Driver):
        def start(self, _port: Port | None) -> None:
            self.ctx.emit(Sample({"a": float("nan")}), Sample({"a": 1.0}), Fault("own_kind"))

    bench.supervisor.add(Odd, DeviceConfig(name="odd", driver="odd"))
    bench.start()
    assert [r.body for r in bench.readings] == [b'{"a":1.0}']
    assert bench.readings[0].seq == 1  # the fault used no number: a gap would say that a reading was lost
    assert bench.report()["odd"]["faults"]["number"]["count"] == 1
    assert bench.report()["odd"]["faults"]["own_kind"]["count"] == 1


def test_no_two_readings_of_a_device_share_a_time_stamp(bench: Bench) -> None:
    line = Line()
    bench.add("weather", line)
    bench.start()
    bench.until(online(bench, "weather"))
    for _ in range(2):  # the clock stands: what comes next seems to come at the same moment
        before = len(bench.readings)
        line.device.sendall(b"a\nb\nc\n")
        bench.until(lambda n=before: len(bench.readings) == n + 3)  # type: ignore[misc]
    stamps = [reading.mono_ns for reading in bench.readings]
    assert [b - a for a, b in pairwise(stamps)] == [1000] * 5


def test_a_sources_own_stamp_is_kept(bench: Bench) -> None:
    class Edges(Driver):
        def start(self, _port: Port | None) -> None:
            self.ctx.emit(Sample({"edge": 1}, mono_ns=5), Sample({"edge": 0}, mono_ns=5))

    bench.supervisor.add(Edges, DeviceConfig(name="edges", driver="edges"))
    bench.start()
    assert [reading.mono_ns for reading in bench.readings] == [5, 5]


def test_kinds_of_faults_are_bounded(bench: Bench) -> None:
    class Odd(Driver):
        def start(self, _port: Port | None) -> None:
            self.ctx.emit(*(Fault(f"kind_{n}", raw=b"x" * 1000) for n in range(1000)))

    bench.supervisor.add(Odd, DeviceConfig(name="odd", driver="odd"))
    bench.start()
    faults = bench.report()["odd"]["faults"]
    assert len(faults) <= 33
    assert sum(f["count"] for f in faults.values()) == 1000
    assert max(len(f["bytes"]) for f in faults.values()) == 64


def test_a_stop_reads_once_more_what_the_kernel_holds(bench: Bench) -> None:
    line = Line()
    bench.add("weather", line)
    bench.start()
    bench.until(online(bench, "weather"))
    line.device.sendall(b"before the stop\nhal")
    stopped: list[int] = []
    bench.supervisor.stop(lambda: stopped.append(1))
    bench.until(lambda: stopped)
    assert bench.texts() == ["before the stop"]
    assert bench.order == ["online", "reading", "offline"]  # offline is said behind the last reading
    assert bench.report()["weather"]["faults"]["cut"]["count"] == 1
    assert bench.state("weather") == "stopped"
    assert line.closed


def test_a_stop_in_every_state(bench: Bench) -> None:
    hung = os.pipe()
    late = Line()

    def hang() -> Line:
        os.read(hung[0], 1)
        return late

    bench.add("online", Line())
    bench.add("waiting", PortError("busy", "held by 42"))
    bench.add("opening", hang)
    bench.start()
    bench.until(online(bench, "online"))
    bench.until(lambda: bench.state("waiting") == "waiting")
    stopped: list[int] = []
    bench.supervisor.stop(lambda: stopped.append(1))
    bench.until(lambda: stopped)
    assert {bench.state(name) for name in ("online", "waiting", "opening")} == {"stopped"}
    os.write(hung[1], b"x")
    bench.until(lambda: late.closed)  # nobody waits for it any more: it closes what it got
    assert stopped == [1]
    os.close(hung[0])
    os.close(hung[1])


def test_a_stop_without_devices(bench: Bench) -> None:
    bench.start()
    stopped: list[int] = []
    bench.supervisor.stop(lambda: stopped.append(1))
    assert stopped == [1]


def test_an_opening_that_hangs_costs_nobody_else_anything(bench: Bench) -> None:
    hung = os.pipe()

    def hang() -> Line:
        os.read(hung[0], 1)
        return Line()

    for number in range(4):  # as many as the pool has threads
        bench.add(f"hung{number}", hang)
    bench.add("good", Line())
    bench.start()
    limit = bench.manager.now() + OPEN_TIMEOUT / 2

    def all_running() -> bool:
        if bench.manager.now() < limit:  # the pool grows with the clock, its threads start when the machine has time
            bench.clock.advance(0.01)
        return bench.manager.stats().work.running == 4

    bench.until(all_running)
    assert bench.state("good") == "opening"
    reasons = set()

    def good_has_a_thread() -> bool:
        # More than once: a thread that has only just begun may have looked at the clock after it was moved.
        bench.clock.advance(OPEN_TIMEOUT + 0.01)
        bench.settle()
        reasons.add(str(bench.report()["hung0"]["reason"]))
        return bench.state("good") == "online"

    bench.until(good_has_a_thread)
    assert any("took longer than" in reason for reason in reasons)
    os.write(hung[1], b"xxxx")
    os.close(hung[1])


# -- parsing on workers ---------------------------------------------------------------------------------------------


class Gate:
    """A feed that stops at a barrier until the test lets it through."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe()
        self.entered = 0

    def __call__(self) -> None:
        self.entered += 1
        os.read(self.read, 1)

    def open(self, times: int = 1) -> None:
        os.write(self.write, b"x" * times)


def test_a_heavy_parser_runs_on_a_worker_in_order_and_the_loop_goes_on(bench: Bench) -> None:
    gate, heavy, light = Gate(), Line(), Line()
    bench.add("heavy", heavy, slow=gate, heavy=True)
    bench.add("light", light)
    bench.start()
    bench.until(lambda: bench.state("heavy") == bench.state("light") == "online")
    heavy.device.sendall(b"one\n")
    bench.until(lambda: gate.entered == 1)
    light.device.sendall(b"light\n")
    bench.until(lambda: bench.readings)
    assert bench.texts() == ["light"]  # the loop was free while the worker parsed
    heavy.device.sendall(b"two\n")
    bench.settle()
    heavy.device.sendall(b"three\n")
    bench.settle()
    gate.open(10)
    bench.until(lambda: len(bench.readings) == 4)
    assert bench.texts() == ["light", "one", "two", "three"]


def test_a_parser_measured_as_slow_moves_to_a_worker(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:

    monkeypatch.setattr(context_stream, "SLOW_FEED", 0.0)  # every feed is a slow one
    line, threads = Line(), []
    import threading

    bench.add("weather", line, slow=lambda: threads.append(threading.current_thread() is threading.main_thread()))
    bench.start()
    bench.until(online(bench, "weather"))
    for number in range(SLOW_FEEDS + 2):
        line.device.sendall(b"%d\n" % number)
        bench.until(lambda n=number: len(bench.readings) == n + 1)  # type: ignore[misc]
    assert threads == [True] * SLOW_FEEDS + [False] * 2
    assert bench.texts() == [str(n) for n in range(SLOW_FEEDS + 2)]
    assert sum("parser.moved" in r.message for r in caplog.records) == 1


def test_a_stop_waits_for_the_parser(bench: Bench) -> None:
    gate, line = Gate(), Line()
    bench.add("heavy", line, slow=gate, heavy=True)
    bench.start()
    bench.until(online(bench, "heavy"))
    line.device.sendall(b"one\n")
    bench.until(lambda: gate.entered == 1)
    line.device.sendall(b"two\n")
    stopped: list[int] = []
    bench.supervisor.stop(lambda: stopped.append(len(bench.readings)))
    bench.settle()
    assert stopped == []
    gate.open(10)
    bench.until(lambda: stopped)
    assert stopped == [2]
    assert bench.texts() == ["one", "two"]


def test_a_busy_parser_pauses_its_port_and_loses_nothing(bench: Bench) -> None:
    gate, line = Gate(), Line()
    bench.add("heavy", line, slow=gate, heavy=True)
    bench.start()
    bench.until(online(bench, "heavy"))
    line.device.setblocking(False)
    sent, block = 0, b"x" * 1023 + b"\n"
    while sent < 4 * QUEUED_BYTES:
        try:
            sent += line.device.send(block)
        except BlockingIOError:
            if not bench.manager.run_once(timeout=0.05):
                break  # the port is paused: the kernel's buffer is full, and stays so
    assert sent < 4 * QUEUED_BYTES
    stream = bench.supervisor.devices["heavy"]._ctx._streams[0]  # type: ignore[union-attr]
    assert stream._queued < QUEUED_BYTES + 65536
    gate.open(1000)
    bench.until(lambda: len(bench.readings) == sent // 1024)


def test_a_defect_on_a_worker_is_the_devices_alone(bench: Bench) -> None:
    first, second = Line(), Line()
    bench.add("heavy", first, second, heavy=True)
    bench.start()
    bench.until(online(bench, "heavy"))
    first.device.sendall(b"boom\n")
    bench.until(lambda: bench.state("heavy") == "waiting")
    assert bench.report()["heavy"]["faults"]["parser"]["count"] == 1
    bench.clock.advance(1.0)
    bench.until(online(bench, "heavy"))
    second.device.sendall(b"well\n")
    bench.until(lambda: bench.readings)


def test_readings_of_a_lost_device_are_still_handed_on(bench: Bench) -> None:
    gate, line = Gate(), Line()
    bench.add("heavy", line, slow=gate, heavy=True)
    bench.start()
    bench.until(online(bench, "heavy"))
    line.device.sendall(b"last words\n")
    bench.until(lambda: gate.entered == 1)
    line.device.close()
    bench.until(lambda: bench.state("heavy") == "waiting")
    gate.open(10)
    bench.until(lambda: bench.readings)
    assert bench.texts() == ["last words"]


def test_sink_gets_what_one_wake_up_brought_in_one_call(bench: Bench) -> None:
    calls: list[Sequence[Reading]] = []
    bench.supervisor._env.sink = calls.append
    line = Line()
    bench.add("weather", line)
    bench.start()
    bench.until(online(bench, "weather"))
    line.device.sendall(b"one\ntwo\nthree\n")
    bench.until(lambda: calls)
    assert [len(call) for call in calls] == [3]


# -- outputs ----------------------------------------------------------------------------------------------------------


class Relay(Driver):
    """One relay; what it does with a command is in the command."""

    outputs = (Output("relay", "text"),)

    def __init__(self, config: Any, ctx: Any) -> None:
        super().__init__(config, ctx)
        self.links: list[bool] = []

    def start(self, port: Port | None) -> None: ...

    def set(self, output: str, value: Value, done: Done) -> None:
        assert output == "relay"
        match value:
            case "refuse":
                done("it is jammed")
            case "lost":
                raise DeviceLost("its bus is gone")
            case "defect":
                raise ZeroDivisionError("oh")
            case "later":
                self.later = done
            case _:
                done(None)
                done("once is enough")

    def link_changed(self, up: bool) -> None:
        self.links.append(up)


def test_a_command_reaches_the_driver_and_each_is_answered_once(bench: Bench) -> None:
    bench.supervisor.add(Relay, DeviceConfig(name="relay", driver="relay"))
    device = bench.supervisor.devices["relay"]
    answers: list[str | None] = []

    def command(value: str) -> str | None:
        device.set("relay", value, answers.append)
        return answers.pop() if answers else "none yet"

    assert command("on") == "relay is stopped"
    bench.start()
    assert [output.name for output in device.outputs] == ["relay"]
    assert command("on") is None
    assert command("refuse") == "it is jammed"
    assert command("later") == "none yet"
    assert command("lost") == "relay is waiting: its bus is gone"
    assert answers == ["relay is waiting: its bus is gone"], "the one that waited is answered as well"
    assert command("on") == "relay is waiting: its bus is gone"
    bench.advance(1.0)
    assert command("defect") == "relay is waiting: defect in driver relay: ZeroDivisionError: oh"
    bench.advance(1.0)
    assert device.state == "online"
    assert command("on") is None


def test_a_driver_is_told_whether_the_broker_is_there(bench: Bench) -> None:
    bench.supervisor.add(Relay, DeviceConfig(name="relay", driver="relay"))
    device = bench.supervisor.devices["relay"]
    bench.supervisor.link_changed(True)
    bench.start()
    driver = device._driver
    assert isinstance(driver, Relay)
    bench.supervisor.link_changed(False)
    device.lost("unplugged")
    bench.supervisor.link_changed(True)
    assert driver.links == [True, False], "a driver that is stopped is told nothing"
    bench.advance(1.0)
    assert driver.links == [True, False, True]


def test_the_report_names_the_port_of_what_has_one_and_no_null_of_the_rest(bench: Bench) -> None:
    class Serial(StreamDriver):
        def parser(self) -> Parser:
            return Lines()

    bench.add("text")
    bench.supervisor.add(Serial, SerialConfig(name="serial", driver="serial", port="/dev/x"))
    report = bench.report()
    assert report["serial"]["port"] == "/dev/x"
    assert "port" not in report["text"]
