"""All that the author of a driver imports.

A driver is one file: a ``Config`` (what the TOML may say), a pure ``Parser`` (bytes in, ``Sample`` and ``Fault`` out)
and a ``Driver`` that names its channels. Most need no more than::

    class Thermometer(StreamDriver):
        \"\"\"One line of text on what it reads.\"\"\"

        Config = ThermometerConfig                       # a SerialConfig
        channels = (Channel("temperature", "°C", -40, 85, "temperature"),)

        def parser(self) -> Parser:
            return ThermometerParser()

Everything but ``open`` and ``Parser.feed`` runs on the event loop's thread and must not block.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from agent.driver_wanted import Wanted
from agent.errors import ChildEnded, DeviceLost, PortError, WorkersBusy
from agent.model import Channel, Fault, Sample, Value
from agent.outputs import Output
from agent.ports import SerialSettings
from agent.ports_gpio import GpioLine, gpiod_lacking
from agent.quantity import Interval
from agent.rules_settings import RuleSettings

__all__ = [
    "Channel",
    "ChildEnded",
    "Context",
    "DeviceConfig",
    "DeviceLost",
    "Done",
    "Driver",
    "Fault",
    "GpioLine",
    "GpioPort",
    "Handle",
    "Output",
    "Parser",
    "PollConfig",
    "PollDriver",
    "Port",
    "PortError",
    "Sample",
    "SerialConfig",
    "SerialLine",
    "StreamDriver",
    "Value",
    "WorkersBusy",
    "gpiod_lacking",
]


Done: TypeAlias = Callable[[str | None], object]
"""How a driver answers ``set`` and ``read_now``: None when it is done, else why it is not, for a person."""


class Handle(Protocol):
    """Something that was registered and can be cancelled; it is, by itself, when the driver stops."""

    @property
    def active(self) -> bool: ...

    def cancel(self) -> None: ...


class Port(Protocol):
    """An open device: what ``agent.ports`` opens and ``agent.testing.FakePort`` imitates."""

    @property
    def name(self) -> str: ...

    def fileno(self) -> int: ...

    def read(self) -> bytes:
        """What the kernel holds, without waiting; b"" if nothing. Raises DeviceLost at hang-up and end of file."""

    def write(self, data: bytes) -> None:
        """Send all of data; what the kernel does not take at once goes out when it can. Raises DeviceLost."""

    def flush(self) -> None:
        """Send what ``write`` left over, as far as the kernel takes it; called when the port is writable."""

    on_blocked: Callable[[bool], object] | None
    """Set by ``Context.watch``; the port calls it with True when something is left over, with False when all is out."""

    def close(self) -> None:
        """Idempotent; never waits for what is left over."""


PortT = TypeVar("PortT", bound=Port)


class SerialLine(Port, Protocol):
    """An open serial port."""

    def set_baudrate(self, baudrate: int) -> None:
        """Change the bit rate now; what is not sent yet goes out at the new one. Raises DeviceLost, PortError."""


class GpioPort(Port, Protocol):
    """Requested GPIO lines: what ``agent.ports_gpio`` opens and ``agent.testing.FakeGpio`` imitates.

    ``read`` gives edges as the kernel has them, for ``agent.edges``; ``write`` has nothing to write to.
    """

    @property
    def offsets(self) -> tuple[int, ...]:
        """Of the lines in their chip, in the order in which they were asked for."""

    def levels(self) -> tuple[bool, ...]:
        """What each line is now, in that order: True is active. Raises DeviceLost."""

    def set_level(self, place: int, active: bool) -> None:
        """Set the output at this place in that order. Raises DeviceLost."""


class Context(Protocol):
    """What a driver may do. The supervisor gives one to each driver; tests use ``agent.testing.FakeContext``."""

    @property
    def log(self) -> logging.Logger: ...

    @property
    def device(self) -> str: ...

    @property
    def blocked(self) -> bool:
        """True while the outbox is full and takes no more (``policy = "block"``): then ask no device.

        Streams rest by themselves.
        """

    def now(self) -> float:
        """Monotonic seconds."""

    def every(
        self,
        interval: float,
        fn: Callable[..., object],
        *args: Any,
        first_after: float | None = None,
        name: str | None = None,
    ) -> Handle:
        """Call fn every ``interval`` seconds, the first time after ``first_after`` (default: one interval)."""

    def after(self, delay: float, fn: Callable[..., object], *args: Any, name: str | None = None) -> Handle:
        """Call fn once."""

    def watch(self, port: Port, on_readable: Callable[[], object]) -> Handle:
        """Call on_readable whenever the port has something, a hang-up included; sends what ``port.write`` left over."""

    def submit(
        self,
        fn: Callable[..., Any],
        *args: Any,
        on_done: Callable[[Any], object] | None = None,
        on_error: Callable[[BaseException], object] | None = None,
        timeout: float | None = None,
        weight: float = 1.0,
        lane: str = "",
    ) -> Handle:
        """Run what may block on a worker, in order for this device; the result comes back on the loop's thread.

        What fn raises is given to ``on_error``; so are TimeoutError after ``timeout`` seconds, and WorkersBusy, in a
        later turn, where the workers' queue is full. Without ``on_error``, or raised by it, DeviceLost and WorkersBusy
        make the device be opened again, and anything else is a defect of the driver.
        Work of another ``lane`` does not wait for it: for what may hang (a network file system) beside what must go on.
        """

    def stream(
        self,
        port: Port,
        parser: Parser,
        *,
        heavy: bool = False,
        on_end: Callable[[DeviceLost], object] | None = None,
    ) -> Handle:
        """Read port whenever it has something, feed parser and emit what comes out, until the driver stops.

        ``feed`` runs inline, or on a worker if it is ``heavy`` or was measured as slow; in order either way. When the
        stream ends, ``parser.end`` tells what is left. The end of the port is the loss of the device; with ``on_end``
        it is not (one client of many, a command that has done its work): then on_end is called with what ``read``
        raised, in a later turn, when all is emitted and the port no longer watched. The driver closes it.
        """

    def emit(self, *items: Sample | Fault) -> None:
        """Hand readings and faults on. One call with many costs less than many calls with one."""

    def lost(self, reason: str) -> None:
        """The device is gone: close it and open it again. Returns; the driver's ``stop`` follows."""

    def open_port(self, name: str, fn: Callable[..., PortT], *args: Any) -> PortT:
        """Open by ``fn(*args)`` what is no serial port, as agent.ports_* can; tests give a FakePort by its ``name``.

        Blocks: call it in ``Driver.open``, or on a worker by way of ``agent.ports_opening.Opening``. Raises PortError.
        """

    def open_serial(self, config: SerialConfig) -> SerialLine:
        """Open a serial port or pyserial URL. Blocks: call it in ``Driver.open`` alone. Raises PortError."""

    def open_gpio(self, chip: str, lines: Sequence[GpioLine]) -> GpioPort:
        """Request lines of a GPIO chip (path, name or label). Blocks: call it in ``Driver.open`` alone. PortError."""

    def load_state(self) -> dict[str, Any]:
        """What ``save_state`` was given last, before a restart too; {} at the very first. Blocks: call in ``open``."""

    def save_state(self, state: dict[str, Any]) -> None:
        """Keep state (as JSON) over restarts: a worker writes and fsyncs it, at once; of many the last counts.

        A few kB, and not for every reading: it is an SD card's life. A crash loses what was not saved; a clean stop
        waits for it.
        """


class DeviceConfig(BaseModel):
    """What every ``[[device]]`` may say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=64, description="Name of the device; part of its topics.")
    driver: str = Field(description="Name of the driver; `outstation drivers` lists them.")
    rules: RuleSettings | None = Field(
        None,
        description="What is published of its readings, and how often: deadbands, rates, windows, computed channels.",
    )


class SerialConfig(DeviceConfig, SerialSettings):
    """What a device on a serial port may say."""


class Parser(ABC):
    """Bytes to samples. Pure: no I/O, no clock, no log. It may run on a worker, but never twice at a time.

    One that can be pickled, with what it has of a frame, can go to a process of its own (``workers.kind``).
    """

    @abstractmethod
    def feed(self, data: bytes) -> Iterable[Sample | Fault]:
        """What data completes. The same bytes give the same items, however they are cut."""

    def end(self) -> Iterable[Sample | Fault]:
        """The stream ends here: what is left of it, as a Fault of kind "cut" if that is half a frame. Forgets it."""
        return ()


class Driver(ABC):
    """One device at work. Made anew for each device of the configuration, kept over reopenings.

    The first line of its docstring is what `outstation drivers` shows. ``open`` runs on a worker, all else on the
    loop's thread, in this order: open, start, (stop, open, start) ..., stop.
    """

    Config: ClassVar[type[DeviceConfig]] = DeviceConfig
    channels: Sequence[Channel] = ()
    """What it reads, as far as that is known before the first reading."""
    outputs: Sequence[Output] = ()
    """What may be set; known when it is made. `outstation/<agent>/<device>/<output>/set` takes a new value."""

    def __init__(self, config: Any, ctx: Context) -> None:
        self.config = config
        self.ctx = ctx
        self.wanted = Wanted()

    def open(self) -> Port | None:
        """Open the device. May block: it runs on a worker. Raises PortError or DeviceLost."""
        return None

    @abstractmethod
    def start(self, port: Port | None) -> None:
        """Begin: watch the port, set timers. Called after each opening."""

    def stop(self) -> None:  # noqa: B027  (most drivers have nothing to do here)
        """Stop: called before the port is closed, once for each start. Timers and watches end by themselves."""

    def set(self, output: str, value: Value, done: Done) -> None:  # noqa: ARG002
        """Set the output of that name. Called between start and stop, on the loop's thread, and does not wait.

        value: checked already against ``outputs``: bool for a switch, int or float, str, None for a button.
        done: call it once, now or later: ``done(None)`` when the device has it, ``done("why not")`` else. It need not
        be called when the device is lost. Emit the new value as a reading if it can be read back.
        """
        done(f"{output} cannot be set")

    def read_now(self, done: Done) -> None:
        """Ask now, or await the answer under way. done: call it once all is emitted (by ``wanted``), or why not."""
        done("its driver asks for nothing; readings come by themselves")

    def link_changed(self, up: bool) -> None:  # noqa: B027  (most drivers do the same with and without a broker)
        """The broker is there, or gone: called after start and at each change. For outputs that fall back alone."""

    @classmethod
    def shares(cls, config: Any) -> str | None:
        """Key of what only one device may use (its port), or None. Two devices with the same key are an error."""
        return getattr(config, "port", None)

    @classmethod
    def appears(cls, config: Any) -> str | None:
        """The path or name of a port whose coming is worth an attempt at once; default: the port itself."""
        return cls.shares(config)

    @classmethod
    def lacks(cls, config: Any) -> str | None:  # noqa: ARG003
        """What has to be installed before it can be opened, and how, or None; `outstation check` shows it."""
        return None


class StreamDriver(Driver):
    """Bytes come by themselves: whatever arrives goes to the parser."""

    heavy: ClassVar[bool] = False
    """True: the parser always runs on a worker. Otherwise the supervisor moves it there when it measures it as slow."""

    @abstractmethod
    def parser(self) -> Parser:
        """A new parser; called at each start."""

    def open(self) -> Port | None:
        return self.ctx.open_serial(self.config)

    def start(self, port: Port | None) -> None:
        assert port is not None, "open() of a stream driver gives a port"
        self.ctx.stream(port, self.parser(), heavy=self.heavy)


class PollConfig(SerialConfig):
    """What a device on a serial port that has to be asked may say."""

    interval: Interval = Field(10.0, description="Seconds between two questions.")
    answer_timeout: Interval = Field(1.0, description="Seconds within which the whole answer has to be there.")


class PollDriver(Driver):
    """Ask once an interval, then await the answer with a deadline; all on the loop, none of it waits.

    What arrives while nothing was asked is thrown away. A question still open when the next is due is not asked twice.
    """

    _polls = False  # until start, which a driver that lets its device send by itself does not call

    @abstractmethod
    def request(self) -> bytes:
        """What to send for one reading."""

    @abstractmethod
    def parser(self) -> Parser:
        """A new parser for one answer: it is complete as soon as ``feed`` returns anything."""

    def open(self) -> Port | None:
        return self.ctx.open_serial(self.config)

    def start(self, port: Port | None) -> None:
        assert port is not None, "open() of a poll driver gives a port"
        self._port = port
        self._answer: Parser | None = None
        self._polls = True
        self.ctx.watch(port, self._readable)
        self.ctx.every(self.config.interval, self.poll, first_after=0.0)

    def poll(self) -> None:
        """Ask now, unless an answer is still awaited, or nobody would take it."""
        if self._answer is None and not self.ctx.blocked:
            self._answer = self.parser()
            self._port.write(self.request())
            self._deadline = self.ctx.after(self.config.answer_timeout, self._late)

    def read_now(self, done: Done) -> None:
        if self._polls:
            self.wanted.by(done)
            self.poll()
        else:
            super().read_now(done)

    def _readable(self) -> None:
        data = self._port.read()
        if self._answer is not None and (items := tuple(self._answer.feed(data))):
            self._over(items)

    def _late(self) -> None:
        if self._answer is not None:
            late = Fault("timeout", f"no answer within {self.config.answer_timeout:g} s")
            self._over((*self._answer.end(), late))

    def _over(self, items: Iterable[Sample | Fault]) -> None:
        self._deadline.cancel()
        self._answer = None
        self.ctx.emit(*items)
        self.wanted.over()
