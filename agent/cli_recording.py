"""What `outstation record` does: one device at work under its own driver, with a tap on its port."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any, TextIO, cast

import click
from pydantic import ValidationError

from agent import log
from agent.cli_config import load_config
from agent.clock import Clock, ClockSettings, rfc3339
from agent.config_masked import masked
from agent.driver import (
    Context,
    DeviceConfig,
    DeviceLost,
    Driver,
    Fault,
    Handle,
    Parser,
    Port,
    Sample,
    SerialConfig,
    StreamDriver,
)
from agent.events import EventManager
from agent.hotplug import PathWatch
from agent.model import Reading
from agent.quantity import size
from agent.recording import Entry, Kind, header, line
from agent.supervisor import Supervisor

EX_NOINPUT = 66
EX_IOERR = 74
FLUSH = 0.25
"""Seconds until what was recorded can be seen in the file."""


class Nothing(Parser):
    """Makes nothing of anything: for a port whose driver nobody knows yet."""

    def feed(self, data: bytes) -> Iterable[Sample | Fault]:  # noqa: ARG002
        return ()


class Listen(StreamDriver):
    """Reads a port, and no more."""

    Config = SerialConfig

    def parser(self) -> Parser:
        return Nothing()


class Tap:
    """A port that tells what passes. The loop's thread alone reads and writes it."""

    def __init__(self, port: Port, tell: Callable[[Kind, bytes], None]) -> None:
        self._port = port
        self._tell = tell
        self.is_told = False  # that it was opened

    @property
    def name(self) -> str:
        return self._port.name

    @property
    def on_blocked(self) -> Callable[[bool], object] | None:
        return self._port.on_blocked

    @on_blocked.setter
    def on_blocked(self, value: Callable[[bool], object] | None) -> None:
        self._port.on_blocked = value

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)  # what some ports can beyond the contract

    def fileno(self) -> int:
        return self._port.fileno()

    def read(self) -> bytes:
        try:
            data = self._port.read()
        except DeviceLost:
            self._tell("lost", b"")
            raise
        if data:
            self._tell("rx", data)
        return data

    def write(self, data: bytes) -> None:
        self._tell("tx", data)
        self._port.write(data)

    def flush(self) -> None:
        self._port.flush()

    def close(self) -> None:
        self._port.close()


class Recorder:
    """Writes entries to a file until it is as large as it may be."""

    def __init__(self, file: TextIO, most: int, now: Callable[[], float], full: Callable[[], None]) -> None:
        self.file = file
        self.received = 0
        self.readings = 0
        self.is_full = False
        self.failure: OSError | None = None
        self._most = most
        self._now = now
        self._full = full
        self._begin: float | None = None
        self._written = 0

    def put(self, text: str) -> None:
        """Into Python's buffer; 8 KiB at a time go to the kernel, which holds nobody off before its caches are full."""
        self._written += len(text)
        self._do(self.file.write, text)

    def flush(self) -> None:
        self._do(self.file.flush)

    def _do(self, fn: Callable[..., object], *args: str) -> None:
        try:
            fn(*args)
        except OSError as error:  # a full disk, or a pipe whose reader has gone
            if self.failure is None:
                self.failure = error
                self._full()

    def tell(self, kind: Kind, data: bytes = b"") -> None:
        if self._begin is None:
            self._begin = self._now()
        text = line(Entry(self._now() - self._begin, kind, data))
        if self.is_full or self._written + len(text) > self._most:
            if not self.is_full:
                self.is_full = True
                self._full()
            return
        self.put(text)
        self.received += len(data) if kind == "rx" else 0

    def count(self, readings: Sequence[Reading]) -> None:
        self.readings += len(readings)


class TappedContext:
    """A driver's context with a tap on each port that it opens by itself: the runs of a command."""

    def __init__(self, ctx: Context, tell: Callable[[Kind, bytes], None]) -> None:
        self._ctx = ctx
        self._tell = tell

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ctx, name)

    def open_port(self, name: str, fn: Callable[..., Port], *args: Any) -> Tap:
        return Tap(self._ctx.open_port(name, fn, *args), self._tell)

    def stream(self, port: Port, parser: Parser, **options: Any) -> Handle:
        if isinstance(port, Tap) and not port.is_told:  # on the loop's thread, which open_port is not
            port.is_told = True
            self._tell("opened", b"")
        return self._ctx.stream(port, parser, **options)


def tapped(driver: type[Driver], recorder: Recorder) -> type[Driver]:
    """The driver with a tap on what its ``open`` gives, and on what it opens later."""

    def opened(self: Driver) -> Port | None:
        self.ctx = cast(Context, TappedContext(self.ctx, recorder.tell))  # each opening has a context of its own
        port = driver.open(self)
        return port if port is None or isinstance(port, Tap) else Tap(port, recorder.tell)

    def start(self: Driver, port: Port | None) -> None:
        if isinstance(port, Tap):
            port.is_told = True
            recorder.tell("opened")  # on the loop's thread, as all that is told
        driver.start(self, port)

    return type(driver.__name__, (driver,), {"open": opened, "start": start, "__doc__": driver.__doc__})


def start(file: str, name: str, output: Path, seconds: float | None, max_bytes: str, line: dict[str, Any]) -> int:
    """Record; the exit status. Raises click's errors."""
    try:
        most = size(max_bytes)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--max-bytes") from None
    driver, config = _device(file, name, line)
    if driver.open is Driver.open:
        raise click.BadParameter(f"the driver {config.driver} reads no port", param_hint="DEVICE")
    log.set_up("warning")
    with ExitStack() as stack:
        if str(output) == "-":
            target = sys.stdout
        else:
            try:
                target = stack.enter_context(output.open("x", encoding="utf-8"))
            except FileExistsError:
                raise click.BadParameter(f"{output} is there already", param_hint="--output") from None
            except OSError as error:
                raise click.BadParameter(f"{output}: {error.strerror}", param_hint="--output") from None
        return _record(driver, config, target, seconds, most)


def _device(file: str, name: str, line: dict[str, Any]) -> tuple[type[Driver], DeviceConfig]:
    if "/" in name or ":" in name:
        try:
            return Listen, SerialConfig(name="port", driver="", port=name, **line)
        except ValidationError as error:
            raise click.BadParameter(error.errors()[0]["msg"], param_hint="PORT") from None
    if line:
        raise click.UsageError(f"--{next(iter(line))} is for a PORT; of a DEVICE the configuration says it")
    devices = {device.config.name: device for device in load_config(file).devices}
    if name not in devices:
        known = ", ".join(devices) or "none"
        raise click.BadParameter(f"no device {name!r} in {file}; there are: {known}", param_hint="DEVICE")
    return devices[name].driver, devices[name].config


def _record(driver: type[Driver], config: DeviceConfig, target: TextIO, seconds: float | None, most: int) -> int:
    clock = Clock(ClockSettings())
    numbers = count(1)
    with EventManager() as manager:

        def stop(*_: object) -> None:
            """Once; a second Ctrl-C while a driver ends changes nothing."""
            if stopped:
                return
            stopped.append(True)
            for timer in timers:
                timer.cancel()
            supervisor.stop(manager.terminate)

        stopped: list[bool] = []
        recorder = Recorder(target, most, manager.now, lambda: manager.call_soon(stop))
        supervisor = Supervisor(
            manager,
            clock,
            sink=recorder.count,
            next_seq=lambda _: next(numbers),
            on_state=lambda *_: None,
            paths=PathWatch(),
            rng=random.Random(),
        )
        device = masked(config)
        if isinstance(config, SerialConfig) and not config.driver:
            del device["driver"]
        recorder.put(header(device, rfc3339(clock.wall_ns(clock.mono_ns()))))
        supervisor.add(tapped(driver, recorder), config)
        timers = [manager.create_timer_event(FLUSH, recorder.flush, name="record.flush")]
        if seconds is not None:
            timers.append(manager.create_timer_event(seconds, stop, repeat=False, name="record.end"))
        for number in (signal.SIGINT, signal.SIGTERM):
            manager.create_signal_event(number, stop)
        supervisor.start()
        manager.loop()
        recorder.flush()
        faults = sum(fault.count for fault in supervisor.devices[config.name].counts.faults.values())
    made = "" if driver is Listen else f", {recorder.readings} readings, {faults} faults"
    full = " (as large as it may be)" if recorder.is_full else ""
    click.echo(f"recorded {recorder.received} bytes{made}{full}", err=True)
    if isinstance(recorder.failure, BrokenPipeError):
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), target.fileno()
        )  # what is left in the buffer goes nowhere, in silence
    elif recorder.failure is not None:
        click.echo(f"outstation record: {recorder.failure.strerror}", err=True)
        return EX_IOERR
    return 0 if recorder.received else EX_NOINPUT
