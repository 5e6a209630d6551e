"""What FakeContext offers beyond the real one: a driver's life in one call, deferred work, ports of its choice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from pydantic import ValidationError

from agent.driver import DeviceLost, Fault, Parser, PollConfig, PollDriver, Port, PortError, Sample
from agent.events import WorkTimeout
from agent.testing import FakeContext, FakePort


class NumberParser(Parser):
    """A number and a line feed."""

    def __init__(self) -> None:
        self._half = b""

    def feed(self, data: bytes) -> Iterable[Sample | Fault]:
        *lines, self._half = (self._half + data).split(b"\n")
        return [Sample({"value": float(line)}) for line in lines]

    def end(self) -> Iterable[Sample | Fault]:
        half, self._half = self._half, b""
        return [Fault("cut", raw=half)] if half else ()


class Meter(PollDriver):
    """Asks "?" every ten seconds."""

    Config = PollConfig
    stopped = 0

    def request(self) -> bytes:
        return b"?"

    def parser(self) -> Parser:
        return NumberParser()

    def stop(self) -> None:
        self.stopped += 1


def test_a_polling_driver_asks_awaits_and_gives_up_by_the_clock() -> None:
    ctx = FakeContext("meter")
    ctx.start(Meter, port="/dev/x", interval=10, answer_timeout=1)
    ctx.run()
    assert ctx.port.written == b"?"
    ctx.port.feed(b"1")
    assert ctx.samples == []
    ctx.port.feed(b"7.5\n")
    assert ctx.samples == [Sample({"value": 17.5})]
    ctx.advance(9.999)
    assert ctx.port.written == b"?"
    ctx.advance(1.5)  # asked at 10, and no answer by 11
    assert ctx.port.written == b"??"
    assert [fault.kind for fault in ctx.faults] == ["timeout"]
    ctx.port.answer(b"?", b"1\n")
    ctx.advance(60)
    assert len(ctx.samples) == 7
    assert ctx.now() == pytest.approx(71.499)


def test_a_loss_stops_the_driver_and_reopening_starts_it_again() -> None:
    ctx = FakeContext()
    driver = ctx.start(Meter, port="/dev/x", interval=10)
    ctx.run()
    first = ctx.port
    first.hang_up()
    assert ctx.losses == ["/dev/x hung up"]
    assert (driver.stopped, first.closed) == (1, True)
    ctx.advance(100)
    assert first.written == b"?"  # its timer ended with it
    ctx.reopen()
    ctx.run()
    assert ctx.port is not first
    assert ctx.port.written == b"?"
    ctx.stop()
    assert (driver.stopped, ctx.port.closed) == (2, True)


def test_options_are_checked_as_a_configurations_are() -> None:
    with pytest.raises(ValidationError, match="intervall"):
        FakeContext().start(Meter, port="/dev/x", intervall=10)


def test_ports_are_the_tests_choice() -> None:
    busy = PortError("busy", "/dev/busy: used by pid 7")
    ready = FakePort("ready")
    ctx = FakeContext(ports={"/dev/busy": busy, "/dev/ready": ready})
    with pytest.raises(PortError, match="pid 7"):
        ctx.start(Meter, port="/dev/busy")
    ctx.start(Meter, port="/dev/ready")
    assert ctx.port is ready
    with pytest.raises(LookupError, match="no port was opened"):
        _ = FakeContext().port


def test_deferred_work_runs_when_the_test_says_so_and_may_be_late() -> None:
    ctx = FakeContext(work="deferred")
    seen: list[Any] = []
    ctx.submit(lambda: "slow", on_done=seen.append, on_error=lambda error: seen.append(type(error)), timeout=5)
    ctx.submit(lambda: "second", on_done=seen.append)
    cancelled = ctx.submit(seen.append, "never")
    cancelled.cancel()
    ctx.run()
    assert seen == []
    ctx.advance(5)
    assert seen == [WorkTimeout]
    assert ctx.do_work() == 1
    assert seen == [WorkTimeout, "second"]
    for number in range(3):
        ctx.submit(lambda n=number: n, on_done=seen.append)  # type: ignore[misc]
    assert ctx.do_work(2) == 2
    assert seen[2:] == [0, 1]


def test_a_defect_of_the_driver_reaches_the_test_and_a_loss_does_not() -> None:
    ctx = FakeContext()

    def defect() -> None:
        raise ZeroDivisionError

    def loss() -> None:
        raise DeviceLost("gone")

    ctx.after(1, defect)
    ctx.after(2, loss)
    with pytest.raises(ZeroDivisionError):
        ctx.advance(1)
    ctx.advance(1)
    assert ctx.losses == ["gone"]
    ctx.submit(defect)
    with pytest.raises(ZeroDivisionError):
        ctx.run()


def test_a_real_port_is_refused_with_words() -> None:
    class Other:
        pass

    port: Port = Other()  # type: ignore[assignment]
    with pytest.raises(TypeError, match="watches a FakePort or FakeGpio, not Other"):
        FakeContext().watch(port, print)


def test_samples_and_faults_keep_their_common_order() -> None:
    ctx = FakeContext()
    items = [Sample({"a": 1}), Fault("syntax"), Sample({"a": 2})]
    ctx.emit(*items)
    assert ctx.emitted == items
    assert (len(ctx.samples), len(ctx.faults)) == (2, 1)
