"""FakeContext: all that a driver may do, on a clock that stands still, in memory and in one thread.

The order of calls is that of the real one (agent.context.DeviceContext on the event manager; one contract test runs on
both): nothing that a driver asks for is called back from within its own call, but in a later turn. When the test's call
(``port.feed``, ``advance``, ``run``) returns, everything that it sets off has happened.
"""

from __future__ import annotations

import heapq
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any, Literal, TypeVar, cast

from agent.codec import encode_fields
from agent.driver import (
    DeviceLost,
    Driver,
    Fault,
    Parser,
    Port,
    PortError,
    PortT,
    Sample,
    SerialConfig,
    WorkersBusy,
)
from agent.events import ManualClock, WorkTimeout
from agent.outputs import parse_command
from agent.ports_gpio import GpioLine
from agent.testing.gpio import Beside, FakeGpio
from agent.testing.handles import FakeTimer, FakeWatch, FakeWork
from agent.testing.port import FakePort

D = TypeVar("D", bound=Driver)


class FakeContext(Beside):
    """A driver's context for tests::

    ctx = FakeContext("weather")
    ctx.start(Lines, format="json", port="/dev/null")
    ctx.port.feed(b'{"t": 21.5}\\n')
    assert ctx.samples == [Sample({"t": 21.5})]
    ctx.advance(60)                # a minute of timers
    ctx.port.hang_up()
    assert ctx.losses
    """

    def __init__(
        self,
        device: str = "device",
        *,
        clock: ManualClock | None = None,
        work: Literal["inline", "deferred", "rejected"] = "inline",
        ports: Mapping[str, FakePort | PortError] | None = None,
    ) -> None:
        """work: whether what is submitted runs by itself (inline), when the test says ``do_work`` (deferred), or never,
        as if the workers' queue were full (rejected);
        ports: what ``open_serial`` gives, or raises, by the configuration's ``port``, and ``open_port`` by the name;
        default: a new FakePort each.
        """
        super().__init__()
        self.device = device
        self.clock = clock or ManualClock()
        self.log = logging.getLogger(f"outstation.device.{device}")
        self.samples: list[Sample] = []
        self.faults: list[Fault] = []
        self.emitted: list[Sample | Fault] = []
        """Samples and faults in the order in which they came."""
        self.losses: list[str] = []
        """Reasons given to ``lost``, by the driver or by the port."""
        self.ports: dict[str, FakePort | PortError] = dict(ports or {})
        self.driver: Driver | None = None
        self._port: Port | None = None
        self.blocked = False
        """Set it to True as a full outbox does under policy = "block"."""
        self._work_mode = work
        self._work: deque[FakeWork] = deque()
        self._timers: list[FakeTimer] = []
        self._order = count()
        self._turn: deque[Callable[[], object]] = deque()
        self._running = False
        self._handles: list[FakeTimer | FakeWatch | FakeWork] = []
        self._streams: list[Parser] = []

    # -- what the test does -----------------------------------------------------------------------------------------

    @property
    def port(self) -> FakePort:
        """The port that was opened last."""
        if not isinstance(self._port, FakePort):
            raise LookupError("no port was opened; start a driver first")
        return self._port

    @property
    def gpio(self) -> FakeGpio:
        """The GPIO lines that were opened last."""
        if not isinstance(opened := self.opened, FakeGpio):
            raise LookupError("no GPIO lines were opened; start a driver first")
        return opened

    @property
    def opened(self) -> FakePort | FakeGpio | None:
        """What was opened last, if anything."""
        return self._port if isinstance(self._port, FakePort | FakeGpio) else None

    def start(self, driver: type[D], **options: Any) -> D:
        """Do what the supervisor does: make the driver with these options, open it and start it.

        Raises pydantic.ValidationError for wrong options, and what ``open`` raises.
        """
        config = driver.Config(**{"name": self.device, "driver": driver.__name__.lower(), **options})
        made = driver(config, self)
        self.driver = made
        self.reopen()
        return made

    def reopen(self) -> None:
        """Open and start the driver again, as the supervisor does after a loss."""
        assert self.driver is not None, "start a driver first"
        self._port = self.driver.open()
        losses = len(self.losses)
        self._enter(lambda: self._call(cast(Driver, self.driver).start, self._port))
        if len(self.losses) == losses:
            self.link(True)

    def stop(self) -> None:
        """Stop the driver cleanly: read what is there, stop, end its parsers, close the port."""
        for handle in self._handles:
            if isinstance(handle, FakeWatch) and handle.active and handle.port.readable:
                self._enter(handle.on_readable)
        self._close()

    def set(self, output: str, payload: bytes | str) -> list[str | None]:
        """Do what a command at ``.../<output>/set`` does; the list gets what the driver answers.

        None: it is set; else why not. Raises ValueError for what never reaches a driver: it does not fit ``outputs``.
        """
        assert self.driver is not None, "start a driver first"
        command = parse_command(payload.encode() if isinstance(payload, str) else payload)
        known = {each.name: each for each in self.driver.outputs}
        if output not in known:
            raise ValueError(f"{output} is no output; there are {', '.join(known) or 'none'}")
        value = known[output].checked(command.value, command.text)
        answers: list[str | None] = []
        self._enter(lambda: cast(Driver, self.driver).set(output, value, answers.append))
        return answers

    def link(self, up: bool) -> None:
        """The broker is there, or gone."""
        self._enter(lambda: cast(Driver, self.driver).link_changed(up))

    def run(self) -> None:
        """Let everything happen that is due now. No time passes."""
        self._enter(self._fire)

    def advance(self, seconds: float) -> None:
        """Let time pass. Timers fire one after another, each at its own time."""
        end = self.clock.now() + seconds
        while (due := self._next_due()) is not None and due <= end:
            self.clock.advance_to(due)
            self.run()
        self.clock.advance_to(end)
        self.run()

    def do_work(self, pieces: int | None = None) -> int:
        """Run so many pieces of deferred work (None: all that are there), in order; how many ran."""
        done = 0
        while self._work and (pieces is None or done < pieces):
            piece = self._work.popleft()
            if not piece.active:
                continue
            self._enter(lambda piece=piece: self._finish(piece))  # type: ignore[misc]
            done += 1
        return done

    # -- what the driver does: driver.Context -----------------------------------------------------------------------

    def now(self) -> float:
        return self.clock.now()

    def every(
        self,
        interval: float,
        fn: Callable[..., object],
        *args: Any,
        first_after: float | None = None,
        name: str | None = None,
    ) -> FakeTimer:
        return self._timer(interval, interval if first_after is None else first_after, fn, args, name)

    def after(self, delay: float, fn: Callable[..., object], *args: Any, name: str | None = None) -> FakeTimer:
        return self._timer(None, delay, fn, args, name)

    def watch(self, port: Port, on_readable: Callable[[], object]) -> FakeWatch:
        if not isinstance(port, FakePort | FakeGpio):
            raise TypeError(f"FakeContext watches a FakePort or FakeGpio, not {type(port).__name__}")
        handle = FakeWatch(port, on_readable)
        port.on_input = lambda: self._enter(lambda: self._readable(handle))
        self._handles.append(handle)
        if port.readable:
            self._later(lambda: self._readable(handle))
        return handle

    def stream(
        self,
        port: Port,
        parser: Parser,
        *,
        heavy: bool = False,  # noqa: ARG002  (order is the same)
        on_end: Callable[[DeviceLost], object] | None = None,
    ) -> FakeWatch:
        def readable() -> None:
            try:
                data = port.read()
            except DeviceLost as gone:
                if on_end is None:
                    raise
                reason = gone
                handle.cancel()
                self._streams.remove(parser)
                self.emit(*parser.end())
                self._later(lambda: on_end(reason))
            else:
                self.emit(*parser.feed(data))

        self._streams.append(parser)
        handle = self.watch(port, readable)
        return handle

    def submit(
        self,
        fn: Callable[..., Any],
        *args: Any,
        on_done: Callable[[Any], object] | None = None,
        on_error: Callable[[BaseException], object] | None = None,
        timeout: float | None = None,
        weight: float = 1.0,  # noqa: ARG002  (there is one worker)
        lane: str = "",  # noqa: ARG002
    ) -> FakeWork:
        piece = FakeWork(fn, args, on_done, on_error, timeout)
        self._handles.append(piece)
        if self._work_mode == "rejected":
            self._later(lambda: self._reject(piece))
        elif self._work_mode == "inline":
            self._later(lambda: self._finish(piece))
        else:
            self._work.append(piece)
            if timeout is not None:
                piece.deadline = self._timer(None, timeout, self._time_out, (piece,), None)
        return piece

    def emit(self, *items: Sample | Fault) -> None:
        for given in items:
            item = given
            if isinstance(item, Sample):
                try:
                    encode_fields(item.fields)
                except ValueError as error:  # as the real one: what cannot be said in JSON is a Fault
                    item = Fault("number", str(error), repr(item.fields).encode())
            self.emitted.append(item)
            if isinstance(item, Sample):
                self.samples.append(item)
            else:
                self.faults.append(item)

    def lost(self, reason: str) -> None:
        self.losses.append(reason)
        self._close()

    def open_port(self, name: str, fn: Callable[..., PortT], *args: Any) -> PortT:  # noqa: ARG002  (not for real)
        return cast(PortT, self._open(name))

    def open_gpio(self, chip: str, lines: Sequence[GpioLine]) -> FakeGpio:
        if isinstance(error := self.ports.get(chip), PortError):
            raise error
        self._port = gpio = self.request(chip, lines, lambda: round(self.now() * 1e9))
        return gpio

    def open_serial(self, config: SerialConfig) -> FakePort:
        return self._open(config.port)

    def _open(self, name: str) -> FakePort:
        port = self.ports.get(name)
        if isinstance(port, PortError):
            raise port
        if port is None or port.closed:
            port = self.ports[name] = FakePort(name)
        self._port = port
        return port

    # -- turns ------------------------------------------------------------------------------------------------------

    def _later(self, fn: Callable[[], object]) -> None:
        self._turn.append(fn)

    def _enter(self, fn: Callable[[], object]) -> None:
        """Call fn, then all that follows from it; from within a callback: after it."""
        self._turn.append(fn)
        if self._running:
            return
        self._running = True
        try:
            while self._turn:
                self._call(self._turn.popleft())
        finally:
            self._running = False

    def _call(self, fn: Callable[..., object], *args: Any) -> None:
        """DeviceLost and WorkersBusy are a loss; what else a driver raises is a defect, and the test shall see it."""
        try:
            fn(*args)
        except (DeviceLost, WorkersBusy) as gone:
            self.lost(str(gone))

    def _readable(self, handle: FakeWatch) -> None:
        if handle.active and handle.port.readable:
            handle.on_readable()
            if handle.active and handle.port.readable:  # level-triggered, as epoll
                self._later(lambda: self._readable(handle))

    def _timer(
        self, interval: float | None, delay: float, fn: Callable[..., object], args: tuple[Any, ...], name: str | None
    ) -> FakeTimer:
        timer = FakeTimer(self.now(), interval, delay, next(self._order), fn, args, name)
        self._handles.append(timer)
        heapq.heappush(self._timers, timer)
        return timer

    def _next_due(self) -> float | None:
        while self._timers and not self._timers[0].active:
            heapq.heappop(self._timers)
        return self._timers[0].due if self._timers else None

    def _fire(self) -> None:
        """What is due, in order of due time and of creation; the batch is fixed before the first of them runs."""
        now = self.now()
        batch: list[FakeTimer] = []
        while (due := self._next_due()) is not None and due <= now:
            batch.append(heapq.heappop(self._timers))
        for timer in batch:
            self._later(lambda timer=timer: self._fire_one(timer, now))  # type: ignore[misc]
        if batch:
            self._later(self._fire)  # what they made that is due already: a later turn of the same instant

    def _fire_one(self, timer: FakeTimer, now: float) -> None:
        if not timer.active:
            return
        if timer.step(now):
            heapq.heappush(self._timers, timer)
        timer.fn(*timer.args)

    def _finish(self, piece: FakeWork) -> None:
        if not piece.active:
            return
        try:
            result = piece.fn(*piece.args)
        except Exception as error:  # noqa: BLE001  (a worker's job: on_error, as the real one)
            self._settle(piece, None, error)
        else:
            self._settle(piece, result, None)

    def _reject(self, piece: FakeWork) -> None:
        if piece.active:
            self._settle(piece, None, WorkersBusy(f"{piece.fn!r}: the queue is full"))

    def _time_out(self, piece: FakeWork) -> None:
        if piece.active:
            self._settle(piece, None, WorkTimeout(f"{piece.fn!r} took longer than {piece.timeout:g} s"))

    def _settle(self, piece: FakeWork, result: Any, error: BaseException | None) -> None:
        piece.done = True
        if piece.deadline is not None:
            piece.deadline.cancel()
        if error is None:
            if piece.on_done is not None:
                self._later(lambda: cast(Any, piece.on_done)(result))
        elif piece.on_error is not None:
            self._later(lambda: cast(Any, piece.on_error)(error))
        else:
            raise error

    def _close(self) -> None:
        if self.driver is not None:
            self.driver.stop()
        for handle in self._handles:
            handle.cancel()
            if isinstance(handle, FakeWatch):
                handle.port.on_input = None
        self._handles.clear()
        streams, self._streams = self._streams, []
        for parser in streams:
            self.emit(*parser.end())
        if self._port is not None:
            self._port.close()
