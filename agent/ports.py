"""Serial ports: opened on a worker, then read and written by descriptor on the event loop.

pyserial sets the line up; from then on there is a bare descriptor. Its own reading is twenty times slower, its
non-blocking writing spins on EAGAIN, and it keeps four descriptors of pipes for each port that nobody here would use.
"""

from __future__ import annotations

import os
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, Field

from agent import ports_list
from agent.errors import DeviceLost, PortError
from agent.ports_errors import port_error
from agent.ports_line import Rs485, keep_lines_on_close, set_rs485
from agent.ports_net import connect, negotiate
from agent.ports_rfc2217 import SET_BAUDRATE, Telnet, escape

READ_SIZE: Final = 65536
"""A socket's burst in one call; a tty gives at most 4095 bytes (n_tty)."""

WRITE_LIMIT: Final = 65536
"""Bytes that may wait for a device that takes nothing: 5 s at 115,200 Bd. More means that it is held off for good."""

_FIXED: Final = "let the bit rate stay as it is, or use a path, usb:VID:PID or rfc2217://host:port"
_INSTEAD: Final = (
    "use a path, usb:VID:PID, or socket://host:port or rfc2217://host:port of a serial server (as ser2net)"
)


def _stopbits(value: float) -> float:
    if value not in (1, 1.5, 2):
        raise ValueError("stop bits are 1, 1.5 or 2")
    return value


def _port(value: str) -> str:
    if ports_list.is_usb(value):
        name = ports_list.parse(value)
        tail = f":{name.serial}:{name.interface}" if name.interface else f":{name.serial}" if name.serial else ""
        return f"usb:{name.vid}:{name.pid}{tail}"
    return value


class SerialSettings(BaseModel):
    """How a serial port is opened; part of the configuration of every device on one."""

    port: Annotated[str, AfterValidator(_port)] = Field(
        min_length=1,
        pattern=r"^[^\x00]+$",
        description="Path of the port, best below /dev/serial/by-id; or usb:VID:PID[:SERIAL[:INTERFACE]]; or "
        "socket://host:port for a raw TCP serial server, rfc2217://host:port for one that sets the line, "
        "hwgrep://regexp.",
    )
    baudrate: int = Field(9600, ge=50, le=12_000_000, description="Bits per second.")
    bytesize: Literal[5, 6, 7, 8] = Field(8, description="Data bits.")
    parity: Literal["none", "even", "odd", "mark", "space"] = Field("none", description="Parity bit.")
    stopbits: Annotated[float, AfterValidator(_stopbits)] = Field(
        1, description="Stop bits: 1, 1.5 or 2; Linux sends 2 for 1.5.", json_schema_extra={"enum": [1, 1.5, 2]}
    )
    flow: Literal["none", "xonxoff", "rtscts", "dsrdtr"] = Field("none", description="Flow control.")
    dtr: bool = Field(
        False,
        description="Raise DTR. Off, as it resets many microcontroller boards; some USB devices send only with it.",
    )
    rts: bool = Field(False, description="Raise RTS.")
    hang_up: bool = Field(
        True,
        description="Let DTR and RTS fall when the port is closed (HUPCL). With dtr = true and hang_up = false a board "
        "that resets on DTR resets at the first opening after it was plugged in, and not again.",
    )
    rs485: Rs485 | None = Field(
        None, description="Have the kernel drive an RS-485 transceiver by RTS; {} for the usual one."
    )
    exclusive: bool = Field(True, description="Lock the port against other programs (advisory: flock).")


class SerialPort:
    """An open port: non-blocking, by descriptor. Used on the loop's thread alone."""

    def __init__(self, fd: int, name: str, *, terminal: bool = True) -> None:
        """fd: non-blocking; the port owns it from now on. terminal: it is a tty, whose unsent output close() drops."""
        self.name = name
        self.on_blocked: Callable[[bool], object] | None = None
        """Called with True when the kernel does not take all that was written, with False when all is out."""
        self._fd = fd
        self._terminal = terminal
        self._unsent = bytearray()

    def fileno(self) -> int:
        """The descriptor, or -1 once closed."""
        return self._fd

    @property
    def pending(self) -> int:
        """Bytes written that the kernel has not taken yet."""
        return len(self._unsent)

    def read(self) -> bytes:
        """What the kernel holds, at most 64 KiB, without waiting; b"" if that is nothing. Raises DeviceLost."""
        try:
            data = os.read(self._fd, READ_SIZE)
        except BlockingIOError:
            return b""
        except OSError as error:  # EIO, ENXIO, ENODEV of an unplugged adapter; ECONNRESET, ETIMEDOUT of a socket
            raise self._lost(error) from error
        if not data:  # VMIN is 1, so that nothing to read is EAGAIN, and this a hang-up
            raise DeviceLost(f"{self.name} hung up")
        return data

    def write(self, data: bytes) -> None:
        """Send all of data; what the kernel does not take at once goes out by ``flush``. Raises DeviceLost."""
        sent = 0 if self._unsent else self._send(data)
        if sent == len(data):
            return
        if len(self._unsent) + len(data) - sent > WRITE_LIMIT:
            raise DeviceLost(f"{self.name} takes nothing: {len(self._unsent)} bytes wait already")
        was_clear = not self._unsent
        self._unsent += data[sent:]
        if was_clear and self.on_blocked is not None:
            self.on_blocked(True)

    def flush(self) -> None:
        """Send of the rest what the kernel takes, without waiting: for when it is writable. Raises DeviceLost."""
        if not self._unsent:
            return
        del self._unsent[: self._send(self._unsent)]
        if not self._unsent and self.on_blocked is not None:
            self.on_blocked(False)

    def set_baudrate(self, baudrate: int) -> None:
        """Change the bit rate now, waiting for nothing: what is not sent yet goes out at the new one.

        Raises DeviceLost; PortError where there is no line of ours, or the kernel has no such rate.
        """
        if self._fd < 0:
            raise DeviceLost(f"{self.name} is closed")
        rate = getattr(termios, f"B{baudrate}", None)
        if not self._terminal or rate is None:
            what = "no such bit rate" if self._terminal else "the bit rate is the server's own"
            raise PortError("unsupported", f"{self.name} cannot be set to {baudrate} Bd: {what}", _FIXED)
        try:
            line = termios.tcgetattr(self._fd)
            line[4] = line[5] = rate
            termios.tcsetattr(self._fd, termios.TCSANOW, line)
        except termios.error as error:
            raise self._lost(OSError(*error.args)) from error

    def close(self) -> None:
        """Idempotent. Drops what is unsent: closing a tty would otherwise wait up to 30 s for it (closing_wait)."""
        fd, self._fd = self._fd, -1
        self._unsent.clear()
        if fd < 0:
            return
        if self._terminal:
            with suppress(termios.error):  # hung up already
                termios.tcflush(fd, termios.TCOFLUSH)
        with suppress(OSError):  # EIO of a device that is gone: Linux has released the number all the same (close(2))
            os.close(fd)

    def _send(self, data: bytes | bytearray) -> int:
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._lost(error) from error

    def _lost(self, error: OSError) -> DeviceLost:
        return DeviceLost(f"{self.name} is closed" if self._fd < 0 else f"{self.name} is gone: {error.strerror}")


class Rfc2217Port(SerialPort):
    """A port behind RFC 2217: what is read and written goes through Telnet; its questions are answered on the way."""

    def __init__(self, fd: int, name: str, telnet: Telnet) -> None:
        super().__init__(fd, name, terminal=False)
        self._telnet = telnet

    def read(self) -> bytes:
        data = self._telnet.receive(super().read())
        if self._telnet.reply:
            answer = bytes(self._telnet.reply)
            self._telnet.reply.clear()
            super().write(answer)
        return data

    def write(self, data: bytes) -> None:
        super().write(escape(data))

    def set_baudrate(self, baudrate: int) -> None:
        self._telnet.command(SET_BAUDRATE, baudrate.to_bytes(4, "big"))
        question = bytes(self._telnet.reply)
        self._telnet.reply.clear()
        super().write(question)


def open_serial(settings: SerialSettings) -> SerialPort:
    """Open the port that settings name. Blocks: run it on a worker. Raises PortError, which says what to do.

    A local port opens in about 0.3 ms; the first one also imports pyserial (7 ms, 1 MiB), hence the import in there.
    """
    scheme = settings.port.partition("://")[0].lower()
    if scheme == "socket":
        return SerialPort(connect(settings.port).detach(), settings.port, terminal=False)
    if scheme == "rfc2217":
        connection, telnet = negotiate(settings)
        return Rfc2217Port(connection.detach(), settings.port, telnet)
    if ports_list.is_usb(settings.port):
        return _open_tty(settings, ports_list.resolve(settings.port))
    return _open_tty(settings, settings.port)


def watched_path(port: str | None) -> str | None:
    """What ``hotplug.PathWatch`` has to watch for a port to appear; None where nothing can be watched."""
    if port is None or port.startswith("/"):
        return port
    return "/dev/tty*" if ports_list.is_usb(port) else None


def _open_tty(settings: SerialSettings, path: str) -> SerialPort:
    import serial

    line: dict[str, Any] = {
        "baudrate": settings.baudrate,
        "bytesize": settings.bytesize,
        "parity": settings.parity[0].upper(),
        "stopbits": settings.stopbits,
        "xonxoff": settings.flow == "xonxoff",
        "rtscts": settings.flow == "rtscts",
        "dsrdtr": settings.flow == "dsrdtr",
        "exclusive": settings.exclusive or None,
        "timeout": 0,
        # VMIN 1, VTIME 0. pyserial's own VMIN 0 makes read() return b"" for "nothing there", as it does for "hung up".
        "inter_byte_timeout": 0,
    }
    try:
        port = serial.serial_for_url(path, do_not_open=True, **line)
    except ValueError as error:  # a scheme unknown to pyserial
        raise PortError("unsupported", f"{path}: {error}", _INSTEAD) from error
    except serial.SerialException as error:  # hwgrep:// that finds nothing
        raise PortError(
            "missing", f"{path}: {error}", "plug the device in, or look with: python -m serial.tools.list_ports"
        ) from error
    if not isinstance(port, serial.Serial) or path.lower().startswith("spy:"):
        scheme = path.partition("://")[0]
        raise PortError("unsupported", f"{path}: {scheme}:// has no descriptor of the port to wait for", _INSTEAD)
    port.dtr = settings.dtr
    port.rts = settings.rts
    try:
        port.open()
    except (OSError, ValueError, termios.error) as error:
        cause = error.__context__ if isinstance(error.__context__, termios.error | OSError) else error
        code = getattr(error, "errno", None) or next((a for a in cause.args[:1] if isinstance(a, int)), None)
        text = os.strerror(code) if code else str(error)
        raise port_error(port.portstr or path, code, text) from error
    try:
        fd = os.dup(port.fileno())  # the same open file: line settings, modem lines and lock stay
    finally:
        port.close()
    try:
        if not settings.hang_up:
            keep_lines_on_close(fd, path)
        if settings.rs485 is not None:
            set_rs485(fd, path, settings.rs485)
    except PortError:
        os.close(fd)
        raise
    return SerialPort(fd, path)
