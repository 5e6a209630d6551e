"""What `outstation probe` does: lists ports, listens at the usual bit rates, on all at once, and says what it heard."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import click
from pydantic import ValidationError

from agent.driver import DeviceLost, Port, PortError
from agent.events import EventManager, SocketEvent, TimerEvent
from agent.ports import SerialSettings, open_serial
from agent.ports_errors import holders
from agent.ports_list import SerialDevice
from agent.recognise import MOST, Guess, modbus, modbus_answers, modbus_question, recognise, text_line
from agent.registry import discover
from agent.testing.toml import dumps

Line = tuple[int, int, str]
"""Bit rate, data bits, parity."""

LINES: Final[tuple[Line, ...]] = (
    (9600, 8, "none"),
    (115_200, 8, "none"),
    (9600, 7, "even"),  # DSMR 2.2 and 3
    (4800, 8, "none"),  # NMEA 0183 as it was written
    (38_400, 8, "none"),
    (57_600, 8, "none"),
    (19_200, 8, "none"),
    (2400, 8, "none"),
)
"""What devices use, the most likely first."""
MODBUS_LINES: Final[tuple[Line, ...]] = ((9600, 8, "none"), (19_200, 8, "even"), (19_200, 8, "none"), (9600, 8, "even"))
"""The standard's default is the second; most devices leave the factory with the first."""
UNITS: Final = range(1, 11)
ANSWER: Final = 0.2
"""Seconds for the answer of a unit; 3.5 characters of silence, as the standard has it between frames, included."""
LOOK: Final = 0.25
"""Seconds between two looks at what has come."""


def listing(devices: Sequence[SerialDevice]) -> Iterator[str]:
    """Each port with what is known of it without opening it."""
    if not devices:
        yield "There is no serial port with hardware behind it here."
    for device in devices:
        usb = device.usb
        what = " ".join(filter(None, (usb.manufacturer, usb.product))) if usb else ""
        interface = f"interface {usb.interface}" if usb and usb.interface not in ("", "00") else ""
        yield "  ".join(filter(None, (device.path, usb.name if usb else "", interface, what, f"({device.driver})")))
        for link in device.links:
            yield f"    {link}"
        for pid, command in holders(device.path):
            yield f"    in use by {command} (pid {pid})"


class Listener:
    """One port: opened at one line setting after the other, until what it sends is known or all were tried.

    Its first descriptor stays open to the end: the kernel lets DTR fall with the last one, and raises it with the next,
    which would reset boards once for each setting.
    """

    def __init__(
        self,
        port: str,
        manager: EventManager,
        *,
        lines: Sequence[Line],
        seconds: float,
        active: bool,
        done: Callable[[], None],
    ) -> None:
        self.port = port
        self.guess: Guess | None = None
        self.line: Line | None = None
        self.notes: list[str] = []
        self._manager = manager
        self._lines = [(line, False) for line in lines]
        if active:
            self._lines += [(line, True) for line in MODBUS_LINES if len(lines) > 1 or line[0] == lines[0][0]]
        self._seconds = seconds
        self._done = done
        self._first: Port | None = None
        self._open: Port | None = None
        self._event: SocketEvent | None = None
        self._timers: list[TimerEvent] = []
        self._data = bytearray()
        self._looked = 0
        self._received = 0
        self._units: list[int] = []
        self._ended = False

    def start(self) -> None:
        """Try the next setting."""
        self._close()
        if self._first is not None and "://" in self.port:  # no modem lines, and maybe one client at a time
            self._first.close()
            self._first = None
        if not self._lines or self._ended:
            self.end()
            return
        self.line, asks = self._lines.pop(0)
        baudrate, bytesize, parity = self.line
        settings = SerialSettings(
            port=self.port,
            baudrate=baudrate,
            bytesize=bytesize,
            parity=parity,
            exclusive=self._first is None,
        )
        self._manager.execute_work(
            open_serial,
            settings,
            on_done=lambda port: self._opened(port, asks),
            on_error=self._failed,
            key=self.port,
            name=f"{self.port}.open",
        )

    def end(self) -> None:
        """No more; idempotent."""
        self._close()
        if self._first is not None:
            self._first.close()
            self._first = None
        if not self._ended:
            self._ended = True
            if not self._received and not self.notes:
                self.notes.append("nothing came, at any bit rate")
            self._done()

    def _opened(self, port: Port, asks: bool) -> None:
        if self._ended:
            port.close()
            return
        self._open = port
        if self._first is None:
            self._first = port
        self._data.clear()
        self._looked = 0
        self._event = self._manager.create_socket_event(
            port, on_readable=self._readable, on_writable=port.flush, name=f"{self.port}.rx"
        )
        self._event.want_writable(False)
        port.on_blocked = self._event.want_writable
        if asks:
            self._units = list(UNITS)
            self._ask([])
        else:
            self._timer(LOOK, self._look, repeat=True)
            self._timer(self._seconds, self._next)

    def _failed(self, error: BaseException) -> None:
        if self._first is not None and isinstance(error, PortError) and error.reason == "failed":
            self.start()  # a port that was opened, and has no such setting: 7E1, say
            return
        self.notes.append(str(error))
        self._lines.clear()
        self.end()

    def _readable(self) -> None:
        assert self._open is not None
        try:
            data = self._open.read()
        except DeviceLost as gone:
            self._failed(gone)
            return
        self._received += len(data)
        self._data += data
        del self._data[:-MOST]

    def _look(self) -> None:
        if self._looked == self._received:
            return
        self._looked = self._received
        self.guess = recognise(bytes(self._data))
        if self.guess is not None:
            self.end()

    def _next(self) -> None:
        self._look()
        if self._ended:
            return
        assert self.line is not None
        if (text := text_line(bytes(self._data))) is not None:
            self.notes.append(f"{words(self.line)}: text that is none of these: {text[:100]!r}")
        elif self._data:
            self.notes.append(f"{words(self.line)}: {bytes(self._data[:16]).hex(' ')} ...")
        self.start()

    def _ask(self, found: list[int]) -> None:
        """The next unit; ``found``: those that answered."""
        if not self._units:
            if found:
                self.guess = modbus(found)
                self.end()
            else:
                self.start()
            return
        unit = self._units.pop(0)
        assert self._open is not None
        self._data.clear()
        try:
            self._open.write(modbus_question(unit))
        except DeviceLost as gone:
            self._failed(gone)
            return
        self._timer(ANSWER, self._asked, unit, found)

    def _asked(self, unit: int, found: list[int]) -> None:
        self._ask([*found, unit] if modbus_answers(bytes(self._data), unit) else found)

    def _timer(self, seconds: float, fn: Callable[..., object], *args: Any, repeat: bool = False) -> None:
        name = f"{self.port}.{fn.__name__.strip('_')}"
        self._timers.append(self._manager.create_timer_event(seconds, fn, *args, repeat=repeat, name=name))

    def _close(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        if self._event is not None:
            self._event.cancel()
            self._event = None
        if self._open is not None and self._open is not self._first:
            self._open.close()
        self._open = None


def listen(
    ports: Sequence[str], devices: Sequence[SerialDevice], seconds: float, baudrate: int | None, active: bool
) -> int:
    """Listen on all of them at once; print what was found. The exit status."""
    listeners = heard(ports, seconds, baudrate, active)
    names: set[str] = set()
    for listener in listeners:
        for line in result(listener, devices, names):
            click.echo(line)
    return 0 if any(listener.guess for listener in listeners) else 1


def heard(ports: Sequence[str], seconds: float, baudrate: int | None = None, active: bool = False) -> list[Listener]:
    """Listen on all of them at once, and until Ctrl-C at most. seconds: at each bit rate."""
    for port in ports:
        try:
            SerialSettings(port=port)
        except ValidationError as error:
            raise click.BadParameter(f"{port}: {error.errors()[0]['msg']}", param_hint="PORT") from None
    lines = LINES if baudrate is None else ((baudrate, 8, "none"), (baudrate, 7, "even"))
    with EventManager() as manager:
        left = len(ports)

        def done() -> None:
            nonlocal left
            left -= 1
            if not left:
                manager.call_soon(manager.terminate)

        listeners = [
            # A raw TCP server has its line set elsewhere: there is one way to listen to it.
            Listener(
                port,
                manager,
                lines=lines[:1] if _is_raw(port) else lines,
                seconds=seconds,
                active=active,
                done=done,
            )
            for port in ports
        ]

        def stop(*_: object) -> None:
            for listener in listeners:
                listener.end()

        for number in (signal.SIGINT, signal.SIGTERM):
            manager.create_signal_event(number, stop)
        for listener in listeners:
            manager.call_soon(listener.start)
        click.echo(f"listening on {', '.join(ports)}: {seconds * len(lines):g} s at most", err=True)
        manager.loop()
    return listeners


def result(listener: Listener, devices: Sequence[SerialDevice], taken: set[str]) -> Iterator[str]:
    """What was found on one port, as TOML and comments. taken: names of devices, which grows by this one's."""
    guess, line = listener.guess, listener.line
    yield f"# {listener.port}"
    if guess is None or line is None:
        for note in listener.notes:
            yield f"#   {note}"
        yield "#   not recognised"
        return
    at = "" if _is_raw(listener.port) else f", at {words(line)}"
    yield f"#   {guess.what}: {guess.found} found{at}"
    if guess.driver not in discover().names:
        yield f"#   the driver {guess.driver!r} for it is not installed"
    yield ""
    yield dumps({"device": [table(guess, line, stable(listener.port, devices), taken)]}).rstrip()
    yield ""


def table(guess: Guess, line: Line, port: str, taken: set[str]) -> dict[str, Any]:
    """The device for a configuration."""
    number = 1
    name = guess.name
    while name in taken:
        number += 1
        name = f"{guess.name}_{number}"
    taken.add(name)
    baudrate, bytesize, parity = line
    made: dict[str, Any] = {"name": name, "driver": guess.driver, "port": port}
    if not _is_raw(port):
        made["baudrate"] = baudrate
        made |= {"bytesize": bytesize} if bytesize != 8 else {}
        made |= {"parity": parity} if parity != "none" else {}
    return made | guess.options


def stable(port: str, devices: Sequence[SerialDevice]) -> str:
    """A name that stays: by the serial number on USB, else udev's link, else as it was given."""
    device = next((device for device in devices if device.path == port), None)
    if device is None:
        return port
    same = [other for other in devices if other.usb and device.usb and other.usb.name == device.usb.name]
    if device.usb and device.usb.serial and len(same) == 1:
        return device.usb.name
    return device.links[0] if device.links else port


def _is_raw(port: str) -> bool:
    return port.lower().startswith("socket://")


def words(line: Line) -> str:
    """``9600 baud, 8N1``."""
    return f"{line[0]} baud, {line[1]}{line[2][0].upper()}1"
