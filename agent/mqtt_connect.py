"""Opening a connection to a broker: name, TCP, TLS, WebSocket. It blocks: it runs on a worker, and without paho."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import LinkError
from agent.logline import line
from agent.mqtt_errors import from_connecting, from_name, from_tls
from agent.mqtt_settings import BrokerUrl, MqttSettings
from agent.mqtt_websocket import LONGEST_ANSWER, WebSocketStream, check_answer, request
from agent.mqtt_wire import Wire

if TYPE_CHECKING:
    import ssl


class Attempt:
    """One attempt at one URL, shared by the worker that makes it and the loop that may give it up."""

    def __init__(self, url: BrokerUrl, settings: MqttSettings) -> None:
        self.url = url
        self.settings = settings
        self.password: bytes | None = None
        self.stage = "name"
        """What it waits for: "name", "tcp", "tls", "websocket", "mqtt"."""
        self.notes: list[str] = []
        """What is not right but no reason to fail; the link logs each once."""
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None
        self._given_up = False

    def hold(self, sock: socket.socket) -> None:
        """The worker has this socket now. Raises LinkError if nobody waits for it any more."""
        with self._lock:
            self._sock = sock
            if not self._given_up:
                return
        sock.close()
        raise LinkError("timeout", "given up")

    def give_up(self) -> None:
        """From the loop: wake the worker out of what it waits for; it closes the socket."""
        with self._lock:
            self._given_up = True
            if self._sock is not None:
                with contextlib.suppress(OSError):
                    self._sock.shutdown(socket.SHUT_RDWR)


def open_wire(attempt: Attempt) -> Wire:
    """Connect as the URL says, within ``connect_timeout`` but for the name: nothing bounds getaddrinfo(3).

    Raises LinkError. The password is read here, so that a changed file needs no restart.
    """
    settings, url = attempt.settings, attempt.url
    attempt.password = read_password(settings, attempt.notes)
    try:
        found = socket.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise from_name(error, url) from None
    except UnicodeError:  # a label of more than 63 characters (RFC 1035), before any name server was asked
        raise LinkError("dns", f"{url.host} is not a host name", "check mqtt.urls") from None
    deadline = time.monotonic() + settings.connect_timeout
    attempt.stage = "tcp"
    sock = _connect(found, attempt, deadline)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if url.tls:
            attempt.stage = "tls"
            sock = _handshake(sock, attempt, deadline)
        wire = Wire(sock, WebSocketStream() if url.websocket else None)
        if url.websocket:
            attempt.stage = "websocket"
            wire.feed(_upgrade(sock, attempt, deadline))
        attempt.stage = "mqtt"
        attempt.hold(sock)
    except BaseException:
        sock.close()
        raise
    return wire


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _connect(
    found: Sequence[tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]],
    attempt: Attempt,
    deadline: float,
) -> socket.socket:
    """The first address that takes the connection. A dead one (often IPv6) costs its share of the time alone."""
    error: OSError = TimeoutError()
    for index, (family, kind, protocol, _, address) in enumerate(found):
        sock = None
        try:
            sock = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
            attempt.hold(sock)
            sock.settimeout(_left(deadline) / (len(found) - index))
            sock.connect(address)
        except LinkError:
            raise
        except OSError as caught:
            error = caught
            if sock is not None:
                sock.close()
        else:
            return sock
    raise from_connecting(error, attempt.url, attempt.settings.connect_timeout)


def _handshake(sock: socket.socket, attempt: Attempt, deadline: float) -> ssl.SSLSocket:
    settings, url = attempt.settings, attempt.url
    context = tls_context(settings)
    try:
        wrapped = context.wrap_socket(sock, server_hostname=url.host, do_handshake_on_connect=False)
    except ValueError as error:  # a host name that cannot stand in SNI
        raise LinkError("tls", f"TLS cannot be used with {url.host!r} ({error})", "check mqtt.urls") from None
    try:
        attempt.hold(wrapped)
        wrapped.settimeout(_left(deadline))
        wrapped.do_handshake()
    except LinkError:
        raise
    except OSError as error:
        wrapped.close()
        raise from_tls(error, url, settings.connect_timeout) from None
    return wrapped


def tls_context(settings: MqttSettings) -> ssl.SSLContext:
    """TLS 1.2 or newer, with the files read afresh: a renewed certificate needs no restart. Raises LinkError."""
    import ssl  # OpenSSL: 4 MB that a plain connection does without

    key, path = "mqtt.ca_file", f"{settings.ca_file}"
    try:
        context = ssl.create_default_context(cafile=None if settings.ca_file is None else str(settings.ca_file))
        # Said here: a distribution's Python may leave it to the configuration of its OpenSSL (Debian's does).
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if settings.cert_file is not None:
            key = "mqtt.cert_file and mqtt.key_file"
            path = f"{settings.cert_file}, {settings.key_file or 'the key in it'}"
            # Without a password OpenSSL would ask for one on the terminal, in the middle of a daemon.
            context.load_cert_chain(settings.cert_file, settings.key_file, password=lambda: b"")
    except ssl.SSLError as error:
        word = (error.reason or str(error)).lower().replace("_", " ")
        remedy = "check that it is PEM, that the key is not encrypted, and that key and certificate belong together"
        raise LinkError("certificate", f"{key} cannot be used: {path} ({word})", remedy) from None
    except OSError as error:
        raise LinkError(
            "certificate", f"{key} cannot be read: {path} ({error.strerror})", "check path and permissions"
        ) from None
    # Python 3.13 turns on every letter of RFC 5280, which most home-made CAs do not meet (no authority key identifier):
    # an upgrade of the board's Python must not cut it off. Signature, validity and host name are checked as before.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if settings.alpn:
        context.set_alpn_protocols(list(settings.alpn))
    if settings.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _upgrade(sock: socket.socket, attempt: Attempt, deadline: float) -> bytes:
    """Open the WebSocket; what came behind the answer."""
    url, key = attempt.url, os.urandom(16)
    where = f"{url.address}{url.path}"
    try:
        sock.settimeout(_left(deadline))
        sock.sendall(request(url.address, url.path, key))
        answer = b""
        while b"\r\n\r\n" not in answer:
            sock.settimeout(_left(deadline))
            data = sock.recv(4096)
            if not data:
                raise ConnectionAbortedError
            answer += data
            if len(answer) > LONGEST_ANSWER:
                raise LinkError(
                    "protocol", f"{where} does not answer as a WebSocket", "check port and path in mqtt.urls"
                )
    except LinkError:
        raise
    except TimeoutError:
        raise LinkError("timeout", f"{where} does not answer as a WebSocket", "check port and path") from None
    except OSError:
        remedy = "check port and path in mqtt.urls; else look at the broker's log"
        raise LinkError("lost", f"{where} closed the connection instead of answering as a WebSocket", remedy) from None
    head, _, rest = answer.partition(b"\r\n\r\n")
    try:
        check_answer(head, key)
    except ValueError as error:
        raise LinkError("protocol", f"{where} {error}", "check port and path in mqtt.urls") from None
    return rest


def read_password(settings: MqttSettings, notes: list[str]) -> bytes | None:
    """The password, from where the settings say, without a newline at its end. Raises LinkError."""
    if settings.username is None:
        return None
    if settings.password_env is not None:
        value = os.environb.get(settings.password_env.encode("ascii"))
        if value is None:
            remedy = "set it for this service, or use mqtt.password_file"
            raise LinkError("credentials", f"the environment has no {settings.password_env}", remedy)
        return value
    path = settings.password_file
    if path is None:
        # LoadCredential=mqtt-password:... of systemd.exec(5)
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        path = Path(directory) / "mqtt-password" if directory else None
        if path is None or not path.exists():
            return None
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & stat.S_IROTH:
                notes.append(line("password.readable", path=path, remedy="everyone can read it: chmod o-r"))
            value = file.read(65_536)  # the longest that fits into CONNECT
    except OSError as error:
        remedy = "check mqtt.password_file and its permissions"
        raise LinkError("credentials", f"the password in {path} cannot be read ({error.strerror})", remedy) from None
    if value.endswith(b"\n"):
        value = value[:-1].removesuffix(b"\r")
    return value
