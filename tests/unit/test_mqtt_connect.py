"""Opening a connection: what blocks, for how long, and what is left behind. On loopback sockets, without a broker."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.errors import LinkError
from agent.mqtt_client import Client
from agent.mqtt_connect import Attempt, open_wire, tls_context
from agent.mqtt_errors import from_connecting, from_name, from_tls, too_late
from agent.mqtt_settings import MqttSettings, parse_url
from agent.mqtt_wire import Wire


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port that answers no SYN: the queue of its listener is full."""
    with ExitStack() as stack:
        sock = stack.enter_context(socket.socket())
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(sock.getsockname())
        yield sock.getsockname()[1]


def attempt(url: str, **settings: object) -> Attempt:
    return Attempt(parse_url(url), MqttSettings.model_validate({"connect_timeout": 10.0, **settings}))


def resolve_to(monkeypatch: pytest.MonkeyPatch, *ports: int) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: found)


def test_a_dead_address_leaves_time_for_the_next_one(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket, black_hole: int
) -> None:
    resolve_to(monkeypatch, black_hole, listener.getsockname()[1])
    wire = open_wire(attempt("mqtt://dual", connect_timeout=0.6))
    wire.end()


def test_when_no_address_answers_the_time_out_is_the_configured_one(
    monkeypatch: pytest.MonkeyPatch, black_hole: int
) -> None:
    resolve_to(monkeypatch, black_hole, black_hole)
    begun = time.monotonic()
    with pytest.raises(LinkError) as caught:
        open_wire(attempt("mqtt://dual", connect_timeout=0.3))
    assert caught.value.reason == "timeout"
    assert 0.25 < time.monotonic() - begun < 2.0


def test_small_packets_leave_at_once(listener: socket.socket) -> None:
    wire = open_wire(attempt(f"mqtt://127.0.0.1:{listener.getsockname()[1]}"))
    with socket.socket(fileno=os.dup(wire.fileno())) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    wire.end()


def test_giving_up_wakes_the_worker_and_closes_its_socket(listener: socket.socket) -> None:
    slow = attempt(f"mqtts://127.0.0.1:{listener.getsockname()[1]}")
    errors: list[BaseException] = []

    def work() -> None:
        try:
            open_wire(slow)
        except LinkError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    sock, _ = listener.accept()
    with sock:
        sock.settimeout(10)
        assert sock.recv(1)  # its ClientHello: it waits for ours
        slow.give_up()
        thread.join(5)
        assert not thread.is_alive()
        assert len(errors) == 1
        while sock.recv(4096):
            pass


def test_what_comes_after_it_was_given_up_is_closed(listener: socket.socket) -> None:
    late = attempt(f"mqtt://127.0.0.1:{listener.getsockname()[1]}")
    late.give_up()
    with pytest.raises(LinkError):
        open_wire(late)


def test_an_encrypted_key_is_an_error_and_no_prompt(tmp_path: Path) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "1"]
    command += ["-subj", "/CN=x", "-passout", "pass:secret"]
    command += ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "cert")]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    settings = MqttSettings(cert_file=tmp_path / "cert", key_file=tmp_path / "key")
    begun = time.monotonic()
    with pytest.raises(LinkError) as caught:
        tls_context(settings)
    assert "not encrypted" in caught.value.remedy
    assert time.monotonic() - begun < 5


def test_tls_is_verified_unless_the_switch_says_otherwise() -> None:
    context = tls_context(MqttSettings())
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    insecure = tls_context(MqttSettings(insecure_skip_verify=True))
    assert (insecure.verify_mode, insecure.check_hostname) == (ssl.CERT_NONE, False)


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_the_password_goes_into_connect_and_is_kept_nowhere(version: str) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        wire = Wire(ours)
        client = Client(wire, MqttSettings.model_validate({"username": "bob", "version": version}), "id", None, print)
        client.send_connect(parse_url("mqtt://h"), b"hunter2")
        sent = theirs.recv(4096)
        assert sent.endswith(b"\x00\x03bob\x00\x07hunter2")
        assert client.password is None
        assert b"hunter2" not in repr(vars(client)).encode()
        wire.end()


URL = parse_url("mqtts://broker.example")


@pytest.mark.parametrize(
    ("error", "reason", "words"),
    [
        (from_connecting(ConnectionRefusedError(errno.ECONNREFUSED, "refused"), URL, 5), "refused", "refuses"),
        (from_connecting(OSError(errno.EHOSTUNREACH, "No route to host"), URL, 5), "unreachable", "No route to host"),
        (from_connecting(OSError(errno.ENETUNREACH, "x"), URL, 5), "unreachable", "unreachable"),
        (from_connecting(TimeoutError(), URL, 5), "timeout", "within 5 s"),
        (from_connecting(OSError(errno.ETIMEDOUT, "x"), URL, 5), "timeout", "within 5 s"),
        (from_connecting(OSError(errno.EMFILE, "Too many open files"), URL, 5), "unreachable", "Too many open files"),
        (from_name(socket.gaierror(socket.EAI_NONAME, "x"), URL), "dns", "unknown host broker.example"),
        (from_name(socket.gaierror(socket.EAI_AGAIN, "x"), URL), "dns", "no name server"),
        (from_tls(ConnectionResetError(errno.ECONNRESET, "reset"), URL, 5), "tls", "does not speak TLS"),
        (from_tls(TimeoutError(), URL, 5), "timeout", "TLS"),
        (too_late("name", URL, 5), "dns", "broker.example"),
        (too_late("tcp", URL, 5), "timeout", "no answer"),
        (too_late("mqtt", URL, 5), "timeout", "MQTT"),
    ],
)
def test_every_way_to_fail_has_a_reason_and_a_remedy(error: LinkError, reason: str, words: str) -> None:
    assert (error.reason, words in str(error)) == (reason, True), error
    assert error.remedy
    assert "\n" not in str(error)
