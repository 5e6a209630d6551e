"""The exec driver: what it refuses, when it runs, what becomes of an end. Its child is a fake."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from agent.driver import ChildEnded, Fault, PortError, Sample
from agent.driver_child import GRACE
from agent.testing import FakeContext, FakePort
from drivers.exec import Exec, ExecConfig

SCALAR = {"format": "scalar", "command": ["gauge"]}


class FakeChild(FakePort):
    """A child that does what it is told when it is killed, and only if it is polite when it is asked."""

    def __init__(self, name: str = "gauge", *, polite: bool = True) -> None:
        super().__init__(name)
        self.polite = polite
        self.signals: list[str] = []

    def end(self, status: int = 0, words: str = "") -> None:
        if status == 0:
            self.feed(b"\n")
        self.hang_up(ChildEnded(self.name, status, words))

    def terminate(self) -> None:
        self.signals.append("TERM")
        if self.polite:
            self.end(-15)

    def kill(self) -> None:
        self.signals.append("KILL")
        self.end(-9)


def started(child: FakeChild, **options: Any) -> FakeContext:
    ctx = FakeContext("d", ports={"gauge": child})
    ctx.start(Exec, **SCALAR | options)
    ctx.run()
    return ctx


@pytest.mark.parametrize(
    ("options", "where", "said"),
    [
        ({"command": []}, "shell", "either command or shell"),
        ({"shell": "gauge | tail"}, "shell", "either command or shell"),
        ({"command": ["", "x"]}, "command", "has no name"),
        ({"command": ["a\0"]}, "command.0", "match"),
        ({"timeout": 1}, "timeout", "only for a command with an interval"),
        ({"whole": True}, "whole", "only for a command with an interval"),
        ({"timeout": 11, "interval": 10}, "timeout", "longer than the interval"),
        ({"whole": True, "interval": 10, "format": "csv", "columns": ["a"]}, "whole", "is of lines"),
        ({"directory": "here"}, "directory", "the whole path"),
        ({"format": "csv"}, "columns", "needs it"),
        ({"comand": []}, "comand", "Extra inputs"),
    ],
)
def test_what_can_never_work_is_refused_by_name(options: dict[str, Any], where: str, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ExecConfig(**{"name": "d", "driver": "exec"} | SCALAR | options)
    (error,) = caught.value.errors()
    assert ".".join(map(str, error["loc"])) == where
    assert said in error["msg"]


def test_a_shell_is_asked_for() -> None:
    config = ExecConfig(name="d", driver="exec", format="scalar", shell="gauge | tail -1")
    assert config.words() == ("/bin/sh", "-c", "gauge | tail -1")
    assert ExecConfig(name="d", driver="exec", **SCALAR).words() == ("gauge",)


def test_it_runs_at_once_and_then_each_interval() -> None:
    ctx = started(FakeChild(), interval=10)
    first = ctx.port
    first.feed(b"21.5")
    assert not ctx.samples
    assert isinstance(first, FakeChild)
    first.end()
    assert ctx.samples == [Sample({"value": 21.5})]
    assert first.closed
    ctx.ports["gauge"] = second = FakeChild()
    ctx.advance(9.9)
    assert ctx.port is first
    ctx.advance(0.2)
    assert ctx.port is second
    assert not ctx.faults
    assert not ctx.losses


def test_a_failed_run_is_a_fault_and_its_last_half_line_no_reading() -> None:
    child = FakeChild()
    ctx = started(child, interval=10)
    child.feed(b"1\n2")
    child.end(3, "no such sensor")
    assert ctx.samples == [Sample({"value": 1})]
    assert ctx.faults == [
        Fault("cut", "the stream ended within a line", b"2"),
        Fault("exit", "gauge: exit status 3: no such sensor"),
    ]
    assert not ctx.losses


@pytest.mark.parametrize("polite", [True, False])
def test_a_late_run_is_asked_to_end_then_killed(polite: bool) -> None:
    child = FakeChild(polite=polite)
    ctx = started(child, interval=10, timeout=4)
    ctx.advance(3.9)
    assert child.signals == []
    ctx.advance(0.2)
    assert child.signals == ["TERM"]
    ctx.advance(GRACE)
    assert child.signals == (["TERM"] if polite else ["TERM", "KILL"])
    (fault,) = ctx.faults
    assert fault.kind == "timeout"
    assert fault.detail == f"not at its end after 4 s; gauge: killed by {'SIGTERM' if polite else 'SIGKILL'}"
    assert child.closed
    ctx.ports["gauge"] = FakeChild()
    ctx.advance(10)
    assert ctx.port is not child


def test_a_run_is_not_begun_before_the_last_has_ended_nor_while_nobody_takes_it() -> None:
    child = FakeChild(polite=False)
    ctx = started(child, interval=1)
    ctx.advance(1.0)  # the deadline and the next run fall together
    assert ctx.faults == [Fault("timeout", "the run before has not ended")]
    ctx.advance(GRACE)
    assert child.closed
    ctx.blocked = True
    ctx.ports["gauge"] = other = FakeChild()
    ctx.advance(5)
    assert ctx.port is child
    ctx.blocked = False
    ctx.advance(1)
    assert ctx.port is other


def test_a_command_that_is_not_there_is_a_loss_that_says_what_to_do() -> None:
    ctx = FakeContext("d", ports={"gauge": PortError("missing", "gauge: no such program", "install it")})
    ctx.start(Exec, **SCALAR, interval=10)
    ctx.run()
    assert ctx.losses == ["gauge: no such program; install it"]


def test_a_full_queue_of_workers_is_a_loss() -> None:
    ctx = FakeContext("d", work="rejected")
    ctx.start(Exec, **SCALAR, interval=10)
    ctx.run()
    assert len(ctx.losses) == 1


def test_it_closes_what_runs_when_it_stops() -> None:
    child = FakeChild()
    ctx = started(child, interval=10)
    ctx.stop()
    assert child.closed


def test_it_closes_what_is_being_started_when_it_stops() -> None:
    child = FakeChild()
    ctx = FakeContext("d", ports={"gauge": child}, work="deferred")
    driver = ctx.start(Exec, **SCALAR, interval=10)
    ctx.run()
    opening = driver._runs._opening
    assert opening is not None
    ctx.stop()
    opening.run()  # the worker was at it, and is not told to stop
    assert child.closed


def test_a_command_that_runs_on_is_lost_when_it_ends() -> None:
    child = FakeChild()
    ctx = started(child)
    child.feed(b"1\n")
    child.feed(b"2\n")
    child.end(0)
    assert ctx.samples == [Sample({"value": 1}), Sample({"value": 2})]
    assert ctx.faults == [Fault("exit", "gauge: exit status 0")]
    assert ctx.losses == ["gauge: exit status 0"]


def test_one_run_may_be_one_line() -> None:
    child = FakeChild()
    ctx = started(child, interval=10, format="json", whole=True)
    child.feed(b'{\n "t":\n  21.5\n}\n')
    assert not ctx.samples
    child.feed(b"\0")
    assert ctx.samples == [Sample({"t": 21.5})]
