"""Serial ports behind TCP: raw (socket://), or by RFC 2217. All of it blocks, on the worker that opens a port."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from agent.errors import PortError
from agent.ports_rfc2217 import Telnet, differences, line_settings, other_settings

if TYPE_CHECKING:
    from agent.ports import SerialSettings

CONNECT_TIMEOUT: Final = 5.0
"""Seconds for the TCP connection."""
NEGOTIATION_TIMEOUT: Final = 4.0
"""Seconds for a server to agree and to set the line; with the connection less than a device has for its opening."""


def connect(url: str) -> socket.socket:
    """A connection to host and port of the URL, non-blocking, that notices a dead peer. Raises PortError."""
    form = f"write {url.partition('://')[0]}://host:port"
    try:
        parts = urlsplit(url)
        host, number = parts.hostname, parts.port
    except ValueError as error:
        raise PortError("unsupported", f"{url}: {error}", form) from error
    if not host or not number:
        raise PortError("unsupported", f"{url}: host or port is missing", form)
    try:
        connection = socket.create_connection((host, number), CONNECT_TIMEOUT)
    except OSError as error:
        reason = error.strerror or str(error)
        raise PortError("failed", f"{url}: {reason}", "is the serial server there, and its port right?") from error
    connection.setblocking(False)
    keep_alive(connection)
    return connection


def keep_alive(connection: socket.socket) -> None:
    """A peer that vanished without a word is noticed within a minute; else a silent device hides it for ever."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def negotiate(settings: SerialSettings) -> tuple[socket.socket, Telnet]:
    """Connect by RFC 2217 and have the server set the line. Raises PortError.

    Data that come before the line is set are dropped, as a tty's are when it is opened.
    """
    url = settings.port
    connection = connect(url)
    try:
        telnet = _negotiate(connection, settings)
        connection.setblocking(False)
    except PortError:
        connection.close()
        raise
    except TimeoutError as error:
        connection.close()
        raise PortError(
            "failed",
            f"{url}: no answer to RFC 2217 within {NEGOTIATION_TIMEOUT:g} s",
            "a server of raw TCP is named socket://",
        ) from error
    except OSError as error:
        connection.close()
        raise PortError(
            "failed", f"{url}: {error.strerror or error}", "does the server have another client?"
        ) from error
    return connection, telnet


def _negotiate(connection: socket.socket, settings: SerialSettings) -> Telnet:
    deadline = time.monotonic() + NEGOTIATION_TIMEOUT
    telnet = Telnet()
    wanted = line_settings(settings)
    telnet.begin()
    asked = False
    while not (asked and telnet.granted.keys() >= wanted.keys()):
        if telnet.refused:
            raise PortError(
                "unsupported", f"{settings.port}: the server does not speak RFC 2217", "if it is raw TCP: socket://"
            )
        if telnet.agreed and not asked:
            asked = True
            for code, value in (*wanted.items(), *other_settings(settings)):
                telnet.command(code, value)
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        if telnet.reply:
            connection.sendall(telnet.reply)
            telnet.reply.clear()
        if time.monotonic() > deadline:
            raise TimeoutError
        data = connection.recv(4096)
        if not data:
            raise PortError(
                "failed", f"{settings.port}: the server hung up", "it may serve one client at a time, or allow no other"
            )
        telnet.receive(data)
    if refused := differences(settings, telnet.granted):
        raise PortError("failed", f"{settings.port}: {'; '.join(refused)}", "ask for what the server's port can do")
    if telnet.reply:
        connection.sendall(telnet.reply)
        telnet.reply.clear()
    return telnet
