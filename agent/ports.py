"""Serial ports: opened on a worker, then read and written by descriptor on the event loop.

pyserial sets the line up; from then on there is a bare descriptor. Its own reading is twenty times slower, its
non-blocking writing spins on EAGAIN, and it keeps four descriptors of pipes for each port that nobody here would use.
"""

from __future__ import annotations

import os
import socket
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Field

from agent.errors import DeviceLost, PortError
from agent.ports_errors import port_error

CONNECT_TIMEOUT: Final = 5.0
"""Seconds for the TCP connection of socket://."""

READ_SIZE: Final = 65536
"""A socket's burst in one call; a tty gives at most 4095 bytes (n_tty)."""

WRITE_LIMIT: Final = 65536
"""Bytes that may wait for a device that takes nothing: 5 s at 115,200 Bd. More means that it is held off for good."""

_INSTEAD: Final = "use the path of a port, or socket://host:port with the serial server (as ser2net) set to raw TCP"


def _stopbits(value: float) -> float:
    if value not in (1, 1.5, 2):
        raise ValueError("stop bits are 1, 1.5 or 2")
    return value


class SerialSettings(BaseModel):
    """How a serial port is opened; part of the configuration of every device on one."""

    port: str = Field(
        min_length=1,
        pattern=r"^[^\x00]+$",
        description="Path of the port, best below /dev/serial/by-id; or socket://host:port for a raw TCP serial "
        "server, or hwgrep://regexp.",
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


def open_serial(settings: SerialSettings) -> SerialPort:
    """Open the port that settings name. Blocks: run it on a worker. Raises PortError, which says what to do.

    A local port opens in about 0.3 ms; the first one also imports pyserial (7 ms, 1 MiB), hence the import in here.
    """
    if settings.port.lower().startswith("socket://"):
        return _open_socket(settings.port)
    return _open_tty(settings)


def _open_tty(settings: SerialSettings) -> SerialPort:
    import serial

    path = settings.port
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
    return SerialPort(fd, path)


def _open_socket(url: str) -> SerialPort:
    try:
        parts = urlsplit(url)
        host, number = parts.hostname, parts.port
    except ValueError as error:
        raise PortError("unsupported", f"{url}: {error}", "write socket://host:port") from error
    if not host or not number:
        raise PortError("unsupported", f"{url}: host or port is missing", "write socket://host:port")
    try:
        connection = socket.create_connection((host, number), CONNECT_TIMEOUT)
    except OSError as error:
        reason = error.strerror or str(error)
        raise PortError("failed", f"{url}: {reason}", "is the serial server there, and its port right?") from error
    connection.setblocking(False)
    # A server that vanished without a word is noticed within a minute; without this a silent device hides it for ever.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return SerialPort(connection.detach(), url, terminal=False)
