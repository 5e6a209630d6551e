"""Sockets as ports: TCP, UDP and Unix, to a server or as one. Opening blocks; what is open never does."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from agent.errors import DeviceLost, PortError
from agent.ports import READ_SIZE, SerialPort
from agent.ports_net import CONNECT_TIMEOUT, keep_alive

LOOPBACK: Final = "127.0.0.1"
"""Where we listen unless told: who opens a port to the network should have said so."""

BACKLOG: Final = 16
UNIX_PATH: Final = 107
"""Bytes of a path that fit into an address (unix(7))."""


class Address(NamedTuple):
    """``tcp://host:port``, ``udp://host:port``, ``unix:///path``: host and port, or host as the path and port 0."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Address:
        """Raises ValueError, which says what would be right."""
        form = "write tcp://host:port, udp://host:port or unix:///path/of/the/socket"
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise ValueError(f"{error}; {form}") from None
        if parts.scheme == "unix":
            if parts.netloc or not parts.path.startswith("/") or len(os.fsencode(parts.path)) > UNIX_PATH:
                raise ValueError(f"a Unix socket has a whole path of at most {UNIX_PATH} bytes; {form}")
            return cls("unix", parts.path, 0)
        if parts.scheme not in ("tcp", "udp") or parts.path.strip("/") or parts.query or "@" in parts.netloc:
            raise ValueError(form)
        if port is None:
            raise ValueError(f"the port is missing; {form}")
        return cls(parts.scheme, host, port)

    @property
    def datagrams(self) -> bool:
        """Each packet stands for itself."""
        return self.scheme == "udp"

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix://{self.host}"
        return f"{self.scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


class DatagramPort(SerialPort):
    """A UDP socket: ``read`` gives one datagram."""

    def read(self) -> bytes:
        """One datagram, without waiting; b"" if there is none, or an empty one. Raises DeviceLost."""
        try:
            return os.read(self.fileno(), READ_SIZE)
        except BlockingIOError:
            return b""
        except OSError as error:  # ECONNREFUSED: nobody at the other end
            raise self._lost(error) from error


class Listener:
    """A socket that waits for clients. Used on the loop's thread alone, once it is open."""

    def __init__(self, listening: socket.socket, name: str, path: str = "") -> None:
        """listening: the listener owns it from now on; path: of a Unix socket, removed with it."""
        self.name = name
        self.on_blocked: Callable[[bool], object] | None = None
        self._socket = listening
        self._path = path
        self._made = os.stat(path).st_ino if path else 0

    def fileno(self) -> int:
        """Readable when a client waits; -1 once closed."""
        return self._socket.fileno()

    def accept(self) -> SerialPort | None:
        """The next client; None if it is gone again. Raises DeviceLost where there is no descriptor for it."""
        try:
            client, address = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return None
        except OSError as error:  # EMFILE: it would be reported for ever, so that we close and try again later
            raise DeviceLost(f"{self.name}: {error.strerror}") from error
        client.setblocking(False)
        if client.family != socket.AF_UNIX:
            keep_alive(client)
        name = f"{address[0]}:{address[1]}" if client.family != socket.AF_UNIX else self.name
        return SerialPort(client.detach(), name, terminal=False)

    def read(self) -> bytes:
        """Clients are taken by ``accept``."""
        return b""

    def write(self, data: bytes) -> None:
        """Clients are written to one by one."""

    def flush(self) -> None:
        """Nothing is ever left over."""

    def close(self) -> None:
        """Idempotent. Removes a Unix socket, unless another stands in its place."""
        if self._socket.fileno() < 0:
            return
        self._socket.close()
        if self._path:
            with suppress(OSError):
                if os.stat(self._path).st_ino == self._made:
                    os.unlink(self._path)


def open_client(address: Address) -> SerialPort:
    """Connect. Blocks, for CONNECT_TIMEOUT at most and a name's resolution. Raises PortError."""
    try:
        if address.scheme == "tcp":
            connection = socket.create_connection((address.host, address.port), CONNECT_TIMEOUT)
            keep_alive(connection)
        elif address.scheme == "udp":
            connection = _bound(address, lambda made, where: made.connect(where))
        else:
            connection = _unix()
            try:
                connection.settimeout(CONNECT_TIMEOUT)
                connection.connect(address.host)
            except OSError:
                connection.close()
                raise
    except OSError as error:
        raise PortError(
            "missing" if error.errno == errno.ENOENT else "failed",
            f"{address}: {error.strerror or error}",
            "is the server there, and the address right?",
        ) from error
    connection.setblocking(False)
    kind = DatagramPort if address.datagrams else SerialPort
    return kind(connection.detach(), str(address), terminal=False)


def open_server(address: Address, mode: int) -> Listener | DatagramPort:
    """Listen. Blocks for a name's resolution alone. mode: of a Unix socket. Raises PortError."""
    here = address._replace(host=address.host or LOOPBACK)
    try:
        if here.scheme == "unix":
            return Listener(_listening_unix(here.host, mode), str(here), here.host)
        made = _bound(here, lambda made, where: made.bind(where), reuse=here.scheme == "tcp")
        made.setblocking(False)
        here = here._replace(port=made.getsockname()[1])  # which the kernel chose, if we said 0
        if here.datagrams:
            return DatagramPort(made.detach(), str(here), terminal=False)
        made.listen(BACKLOG)
        return Listener(made, str(here))
    except OSError as error:
        raise _not_listening(here, error) from error


def _not_listening(address: Address, error: OSError) -> PortError:
    if isinstance(error, PortError):
        return error
    text = f"{address}: {error.strerror or error}"
    if error.errno == errno.EADDRINUSE:
        return PortError("busy", text, f"see who listens there: ss -lp 'sport = :{address.port}'")
    if error.errno in (errno.EACCES, errno.EPERM):
        return PortError("permission", text, "take a port from 1024 on, or a directory that the agent may write to")
    if error.errno == errno.EADDRNOTAVAIL:
        return PortError("missing", text, "no interface has this address now; 0.0.0.0 stands for all of them")
    return PortError("failed", text)


def _bound(
    address: Address, use: Callable[[socket.socket, tuple[object, ...]], None], *, reuse: bool = False
) -> socket.socket:
    """A socket on the first of the host's addresses that can be used. Raises OSError."""
    kind = socket.SOCK_DGRAM if address.datagrams else socket.SOCK_STREAM
    last: OSError | None = None
    for family, kind_, protocol, _, where in socket.getaddrinfo(address.host, address.port, type=kind):
        made = socket.socket(family, kind_, protocol)
        try:
            if reuse:  # a port on which old connections linger (TIME_WAIT) can be had again
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            use(made, where)
        except OSError as error:
            made.close()
            last = error
        else:
            return made
    raise last or OSError(errno.EADDRNOTAVAIL, "it has no address")


def _unix() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)


def _listening_unix(path: str, mode: int) -> socket.socket:
    """Takes the place of a socket that was left behind, and of nothing else."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise PortError("busy", f"{path} is no socket", "remove it, or name another path")
        with _unix() as probe:
            probe.settimeout(CONNECT_TIMEOUT)
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)
            else:
                raise PortError("busy", f"{path}: somebody listens there", "stop it, or name another path")
    made = _unix()
    try:
        made.bind(path)
        os.chmod(path, mode)
        made.setblocking(False)
        made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made
