"""FakeContext and the real DeviceContext on the event manager, held to the same order of calls."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from agent.context import Counts, DeviceContext
from agent.driver import Context, DeviceLost, Fault, Parser, Sample, WorkersBusy
from agent.events import EventManager, ManualClock, Work
from agent.model import Reading
from agent.testing import FakeContext, FakePort


class Letters(Parser):
    """A sample for each letter, a fault for each digit; the end is told."""

    def feed(self, data: bytes) -> Iterable[Sample | Fault]:
        for byte in data:
            yield Fault("digit", chr(byte)) if 48 <= byte < 58 else Sample({"letter": chr(byte)})

    def end(self) -> Iterable[Sample | Fault]:
        return [Fault("cut", "end")]


class Fake:
    """What the contract asks of a context, by the fake."""

    def __init__(self, *, full: bool = False) -> None:
        self.fake = FakeContext("d", work="rejected" if full else "inline")
        self.ctx: Context = self.fake
        self.clock = self.fake.clock
        self.losses = self.fake.losses

    @property
    def samples(self) -> list[dict[str, Any]]:
        return [sample.fields for sample in self.fake.samples]

    @property
    def faults(self) -> list[str]:
        return [fault.kind for fault in self.fake.faults]

    def run(self) -> None:
        self.fake.run()

    def stop(self) -> None:
        self.fake.stop()


class Clock:
    """agent.clock.Clock, as far as a context asks it."""

    def __init__(self, manual: ManualClock) -> None:
        self.manual = manual

    def mono_ns(self) -> int:
        return round(self.manual.now() * 1e9)


class Real:
    """The same by the real one; its owner does what supervisor.Device does."""

    def __init__(self, *, full: bool = False) -> None:
        self.clock = ManualClock()
        self.manager = EventManager(
            clock=self.clock, on_callback_error=self.callback_failed, workers=(1, 1), work_queue=1 if full else 1000
        )
        self.gate = threading.Event()
        if full:  # one piece runs, one waits, and there is no place for a third
            for name in ("runs", "waits"):
                self.manager.execute_work(self.gate.wait, 30.0, name=name)
        self.owners: dict[Any, Any] = {}
        self.counts = Counts()
        self.readings: list[Reading] = []
        self.losses: list[str] = []
        self.work: list[Any] = []
        self.real = DeviceContext(
            "d",
            self.manager,
            Clock(self.clock),  # type: ignore[arg-type]
            counts=self.counts,
            sink=self.readings.extend,
            next_seq=lambda _: len(self.readings),
            owner=self,
            owners=self.owners,
        )
        self.ctx: Context = self.real
        submit = self.real.submit

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.work.append(submit(*args, **kwargs))
            return self.work[-1]

        self.real.submit = counted  # type: ignore[method-assign]

    @property
    def samples(self) -> list[dict[str, Any]]:
        return [json.loads(reading.body) for reading in self.readings]

    @property
    def faults(self) -> list[str]:
        return [kind for kind, counted in self.counts.faults.items() for _ in range(counted.count)]

    def callback_failed(self, event: Any, error: BaseException) -> None:
        self.owners[event].failed(error)

    def failed(self, error: BaseException) -> None:
        assert isinstance(error, DeviceLost | WorkersBusy), error
        self.lost(str(error))

    def lost(self, reason: str) -> None:
        self.losses.append(reason)
        self.real.close(lambda: None)

    def run(self) -> None:
        while any(isinstance(piece, Work) and not piece.done and piece.active for piece in self.work):
            self.manager.run_once(1.0)
        while self.manager.run_once(0):
            pass

    def stop(self) -> None:
        self.real.read_last()
        self.real.close(lambda: None)


@pytest.fixture(params=[Fake, Real], ids=["fake", "real"])
def it(request: pytest.FixtureRequest) -> Iterator[Fake | Real]:
    made: Fake | Real = request.param()
    yield made
    if isinstance(made, Real):
        made.manager.close()


def step(it: Fake | Real, seconds: float, times: int = 1) -> None:
    for _ in range(times):
        it.clock.advance(seconds)
        it.run()


def test_timers_fire_on_the_grid_of_their_first_due_time(it: Fake | Real) -> None:
    seen: list[tuple[str, float]] = []
    it.ctx.every(0.3, lambda: seen.append(("every", round(it.ctx.now(), 6))))
    it.ctx.every(0.5, lambda: seen.append(("first", round(it.ctx.now(), 6))), first_after=0.0)
    it.ctx.after(0.4, lambda tag: seen.append((tag, round(it.ctx.now(), 6))), "once")
    it.run()
    step(it, 0.1, 10)
    assert seen == [
        ("first", 0.0),
        ("every", 0.3),
        ("once", 0.4),
        ("first", 0.5),
        ("every", 0.6),
        ("every", 0.9),
        ("first", 1.0),
    ]


def test_a_jump_over_many_periods_fires_once_and_keeps_the_grid(it: Fake | Real) -> None:
    seen: list[float] = []
    timer: Any = it.ctx.every(1.0, lambda: seen.append(it.ctx.now()))
    step(it, 5.5)
    step(it, 0.5)
    assert seen == [5.5, 6.0]
    assert (timer.fired, timer.skipped) == (2, 4)


def test_ties_fire_in_order_of_creation_and_the_batch_is_fixed_before(it: Fake | Real) -> None:
    seen: list[str] = []

    def first() -> None:
        seen.append("first")
        third.cancel()
        it.ctx.every(1.0, lambda: seen.append("new"), first_after=0.0)

    it.ctx.after(1.0, first)
    it.ctx.after(1.0, seen.append, "second")
    third = it.ctx.after(1.0, seen.append, "third")
    step(it, 1.0)
    assert seen == ["first", "second", "new"]
    assert not third.active


def test_a_timer_that_ends_itself_ends(it: Fake | Real) -> None:
    seen: list[float] = []

    def tick() -> None:
        seen.append(it.ctx.now())
        if len(seen) == 2:
            timer.cancel()

    timer = it.ctx.every(1.0, tick)
    once = it.ctx.after(0.5, lambda: None)
    step(it, 0.5, 10)
    assert seen == [1.0, 2.0]
    assert not timer.active
    assert not once.active


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
def test_a_time_that_is_none_is_refused_at_the_call(it: Fake | Real, wrong: float) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (the words are each one's own)
        it.ctx.every(wrong, print)
    with pytest.raises(ValueError):  # noqa: PT011
        it.ctx.after(wrong, print)


def test_a_port_with_more_is_read_again_and_a_cancelled_watch_is_not(it: Fake | Real) -> None:
    port = FakePort()
    sizes: list[int] = []
    watch = it.ctx.watch(port, lambda: sizes.append(len(port.read())))
    port.feed(b"x" * 100_000)
    it.run()
    assert sizes == [65536, 34464]
    watch.cancel()
    port.feed(b"more")
    it.run()
    assert sizes == [65536, 34464]
    assert not watch.active


def test_what_came_before_the_watch_is_seen(it: Fake | Real) -> None:
    port = FakePort()
    port.feed(b"early")
    seen: list[bytes] = []
    it.ctx.watch(port, lambda: seen.append(port.read()))
    assert seen == []  # not within the call
    it.run()
    assert seen == [b"early"]


def test_an_answer_comes_after_the_write_and_not_within(it: Fake | Real) -> None:
    port = FakePort()
    port.answer(b"?", b"!")
    seen: list[str] = []
    it.ctx.watch(port, lambda: seen.append(port.read().decode()))

    def ask() -> None:
        port.write(b"?")
        seen.append("asked")

    it.ctx.after(1.0, ask)
    step(it, 1.0)
    it.run()
    assert seen == ["asked", "!"]


def test_what_a_write_left_over_goes_out_when_there_is_room(it: Fake | Real) -> None:
    port = FakePort(room=2)
    it.ctx.watch(port, port.read)
    port.write(b"abcd")
    assert port.pending == 2
    port.drain()
    it.run()
    assert port.written == b"abcd"
    assert not port.pending


def test_device_lost_in_a_callback_is_a_loss_and_ends_what_runs(it: Fake | Real) -> None:
    port = FakePort("ttyX")
    timer = it.ctx.every(1.0, print)
    it.ctx.watch(port, port.read)
    port.hang_up()
    it.run()
    assert it.losses == ["ttyX hung up"]
    assert not timer.active


def test_work_runs_in_order_and_hands_back_later(it: Fake | Real) -> None:
    seen: list[Any] = []

    def submit() -> None:
        it.ctx.submit(lambda x: seen.append(x) or x * 2, 1, on_done=lambda r: seen.append(("done", r)))
        it.ctx.submit(divmod, 1, 0, on_error=lambda e: seen.append(type(e)))
        seen.append("submitted")

    it.ctx.after(1.0, submit)
    step(it, 1.0)
    it.run()
    assert set(map(str, seen)) == set(map(str, [1, "submitted", ("done", 2), ZeroDivisionError]))
    assert seen.index("submitted") < seen.index(("done", 2)) < seen.index(ZeroDivisionError)
    assert seen.index(1) < seen.index(("done", 2))


def test_device_lost_of_work_without_on_error_is_a_loss(it: Fake | Real) -> None:
    def gone() -> None:
        raise DeviceLost("no such bus")

    it.ctx.submit(gone)
    it.run()
    assert it.losses == ["no such bus"]


@pytest.mark.parametrize("made", [Fake, Real], ids=["fake", "real"])
def test_a_full_queue_is_told_later_and_is_no_defect(made: type[Fake | Real]) -> None:
    it = made(full=True)
    seen: list[Any] = []

    def submit() -> None:
        it.ctx.submit(seen.append, "never", on_error=lambda error: seen.append(type(error)))
        it.ctx.submit(seen.append, "never", on_error=seen.append).cancel()
        seen.append("submitted")

    it.ctx.after(1.0, submit)
    step(it, 1.0, 2)
    assert seen == ["submitted", WorkersBusy]
    assert it.losses == []
    it.ctx.submit(seen.append, "never")  # nobody asks for the error: the device is opened again
    assert it.losses == []
    it.run()
    assert len(it.losses) == 1
    assert "queue" in it.losses[0]
    if isinstance(it, Real):
        it.gate.set()
        it.manager.close()


def test_a_stream_emits_in_order_and_ends_with_what_is_left(it: Fake | Real) -> None:
    port = FakePort()
    it.ctx.stream(port, Letters())
    port.feed(b"ab1", b"c2")
    it.run()
    assert [s["letter"] for s in it.samples] == ["a", "b", "c"]
    assert it.faults == ["digit", "digit"]
    port.feed(b"d")
    it.stop()
    assert [s["letter"] for s in it.samples] == ["a", "b", "c", "d"]
    assert it.faults == ["digit", "digit", "cut"]
    port.feed(b"e")
    it.run()
    assert len(it.samples) == 4


def test_a_stream_whose_port_hangs_up_is_lost_and_tells_what_was_half(it: Fake | Real) -> None:
    port = FakePort("ttyX")
    it.ctx.stream(port, Letters(), heavy=False)
    port.feed(b"a")
    it.run()
    port.hang_up()
    it.run()
    assert it.losses == ["ttyX hung up"]
    assert it.faults == ["cut"]


def test_what_json_cannot_say_is_a_fault(it: Fake | Real) -> None:
    it.ctx.emit(Sample({"t": math.nan}), Sample({"t": 1.5}), Fault("checksum", "x"), Sample({"t": 2**70}))
    assert it.samples == [{"t": 1.5}]
    assert sorted(it.faults) == ["checksum", "number", "number"]


def test_the_clock_is_the_managers(it: Fake | Real) -> None:
    before = it.ctx.now()
    step(it, 2.5)
    assert it.ctx.now() - before == 2.5
    assert it.ctx.device == "d"


def test_a_stream_that_may_end_tells_its_owner_behind_its_last_items_and_the_device_goes_on(it: Fake | Real) -> None:
    first, second = FakePort(), FakePort()
    ends: list[tuple[str, int, list[str]]] = []

    def ended(end: DeviceLost) -> None:
        ends.append((str(end), len(it.samples), it.faults))

    it.ctx.stream(first, Letters(), on_end=ended)
    it.ctx.stream(second, Letters(), on_end=ended)
    first.feed(b"a1")
    it.run()
    first.hang_up(DeviceLost("it is over"))
    it.run()
    it.run()
    assert ends == [("it is over", 1, ["digit", "cut"])]
    second.feed(b"b")
    it.run()
    assert [sample["letter"] for sample in it.samples] == ["a", "b"]
    assert it.losses == []
    it.stop()
    assert it.faults == ["digit", "cut", "cut"], "the end of a stream is told once"
    assert len(ends) == 1


def test_what_is_raised_at_the_end_of_a_stream_finds_its_device(it: Fake | Real) -> None:
    port = FakePort()

    def ended(end: DeviceLost) -> None:
        raise DeviceLost(f"so all of it: {end}")

    it.ctx.stream(port, Letters(), on_end=ended)
    port.hang_up(DeviceLost("over"))
    it.run()
    it.run()
    assert it.losses == ["so all of it: over"]


def test_a_stream_that_ends_on_a_worker_gives_all_of_it_first() -> None:
    it = Real()
    port = FakePort()
    ends: list[int] = []
    with it.manager:
        it.ctx.stream(port, Letters(), heavy=True, on_end=lambda _: ends.append(len(it.samples)))
        port.feed(b"abc")
        it.manager.run_once(0)
        port.hang_up()
        for _ in range(100):
            if ends:
                break
            it.manager.run_once(1.0)
        assert ends == [3]
        assert it.faults == ["cut"]
