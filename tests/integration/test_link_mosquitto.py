"""The link against a real Mosquitto: every transport, both versions, what can be wrong, outages and the clean end."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mqtt_support import Rig, rig

from agent.errors import LinkError
from agent.mqtt_connect import read_password
from agent.mqtt_settings import MqttSettings
from agent.testing.broker import Broker, BrokerError
from agent.testing.subscriber import Message, Subscriber


def openssl(*args: object) -> None:
    subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True, timeout=30)


NEW = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass
class Pki:
    """Certificates in a directory: NAME.pem and NAME.key."""

    directory: Path

    def ca(self, name: str) -> None:
        openssl(
            *("req", "-x509", *NEW, "-days", 1, "-subj", f"/CN={name}"),
            *("-keyout", self / f"{name}.key", "-out", self / f"{name}.pem"),
        )

    def issue(self, name: str, names: str, *, ca: str = "ca", days: int = 1) -> None:
        extra = self / "ext"
        extra.write_text(f"subjectAltName={names}\n")
        openssl("req", *NEW, "-subj", f"/CN={name}", "-keyout", self / f"{name}.key", "-out", self / "csr")
        openssl(
            *("x509", "-req", "-in", self / "csr", "-CA", self / f"{ca}.pem", "-CAkey", self / f"{ca}.key"),
            *("-CAcreateserial", "-days", days, "-extfile", extra, "-out", self / f"{name}.pem"),
        )

    def __truediv__(self, name: str) -> Path:
        return self.directory / name


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    pki = Pki(tmp_path_factory.mktemp("pki"))
    local = "DNS:localhost,IP:127.0.0.1"
    pki.ca("ca")
    pki.ca("stranger")
    pki.issue("server", local)
    pki.issue("expired", local, days=-1)
    pki.issue("elsewhere", "DNS:broker.example")
    pki.issue("client", "DNS:client")
    pki.issue("intruder", "DNS:client", ca="stranger")
    return pki


@dataclass
class Listeners:
    """One Mosquitto and its ports, by name."""

    broker: Broker
    ports: dict[str, int]

    def url(self, scheme: str, name: str, host: str = "localhost") -> str:
        return f"{scheme}://{host}:{self.ports[name]}"


def mosquitto(**options: object) -> Broker:
    try:
        return Broker("mosquitto", **options)  # type: ignore[arg-type]
    except BrokerError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def listeners(pki: Pki) -> Iterator[Listeners]:
    def tls(server: str) -> list[str]:
        return [f"cafile {pki / 'ca.pem'}", f"certfile {pki / f'{server}.pem'}", f"keyfile {pki / f'{server}.key'}"]

    kinds = {
        "tls": tls("server"),
        "client": [*tls("server"), "require_certificate true"],
        "expired": tls("expired"),
        "elsewhere": tls("elsewhere"),
        "ws": ["protocol websockets"],
        "wss": ["protocol websockets", *tls("server")],
    }
    with socket_ports(len(kinds)) as free:
        ports = dict(zip(kinds, free, strict=True))
    config = [line for name, lines in kinds.items() for line in (f"listener {ports[name]} 127.0.0.1", *lines)]
    with mosquitto(config="\n".join(config)) as broker:
        yield Listeners(broker, {**ports, "plain": broker.port})


class socket_ports:  # noqa: N801
    """Free ports, all held until the end of the block so that they differ."""

    def __init__(self, count: int) -> None:
        self._sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]

    def __enter__(self) -> list[int]:
        return [sock.getsockname()[1] for sock in self._sockets]

    def __exit__(self, *_: object) -> None:
        for sock in self._sockets:
            sock.close()


def seqs(messages: list[Message]) -> list[int]:
    return [message.json()["seq"] for message in messages if message.topic.endswith("/telemetry")]


def round_trip(it: Rig, broker: Broker, *, count: int = 20) -> None:
    """Readings, a clean stop, and what a subscriber outside saw of it."""
    with Subscriber(broker.url, "outstation/#") as subscriber:
        it.put(count // 2)
        it.link.start()
        it.until(lambda: it.outbox.depth == 0)
        it.put(count - count // 2)
        it.drain_link()
        messages = subscriber.wait_for(
            lambda all_: all_ if all_ and all_[-1].payload == b"offline" and not all_[-1].retain else None
        )
    live = [message for message in messages if not message.retain]  # not what the test before has left
    topics = [(message.topic, message.payload) for message in live if "availability" in message.topic]
    assert topics == [("outstation/a/availability", b"online"), ("outstation/a/availability", b"offline")]
    assert seqs(messages) == list(range(1, count + 1))


@pytest.mark.parametrize("version", ["3.1.1", "5"])
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("scheme", ["mqtt", "mqtts", "ws", "wss"])
def test_readings_arrive_over_every_transport(
    listeners: Listeners, pki: Pki, scheme: str, qos: int, version: str
) -> None:
    name = {"mqtt": "plain", "mqtts": "tls"}.get(scheme, scheme)
    with rig(listeners.url(scheme, name), ca_file=pki / "ca.pem", version=version, qos=qos) as it:
        round_trip(it, listeners.broker)


def test_a_client_certificate_is_shown(listeners: Listeners, pki: Pki) -> None:
    files = {"ca_file": pki / "ca.pem", "cert_file": pki / "client.pem", "key_file": pki / "client.key"}
    with rig(listeners.url("mqtts", "client"), **files) as it:
        round_trip(it, listeners.broker)


def test_the_insecure_switch_connects_and_says_so(listeners: Listeners, caplog: pytest.LogCaptureFixture) -> None:
    with rig(listeners.url("mqtts", "expired"), insecure_skip_verify=True) as it:
        round_trip(it, listeners.broker)
    assert [record.levelname for record in caplog.records if "link.insecure" in record.message] == ["WARNING"]


def test_large_payloads_pass_every_frame_length_of_a_websocket(listeners: Listeners, pki: Pki) -> None:
    with (
        Subscriber(listeners.broker.url, "outstation/a/d/telemetry") as subscriber,
        rig(listeners.url("wss", "wss"), ca_file=pki / "ca.pem", max_packet=500_000) as it,
    ):
        it.link.start()
        sizes = [10, 40, 1000, 60_000, 66_000, 200_000]
        for size in sizes:
            it.put(1, text="ä" * (size // 2))
        it.until(lambda: it.outbox.depth == 0)
        messages = subscriber.wait_for(lambda all_: all_ if len(all_) == len(sizes) else None)
        assert [len(message.json()["fields"]["text"]) for message in messages] == [size // 2 for size in sizes]
        it.drain_link()


# ---- what can be wrong


@pytest.mark.parametrize(
    ("scheme", "listener", "host", "settings", "reason", "words"),
    [
        ("mqtts", "expired", "localhost", {"ca_file": "ca.pem"}, "certificate", "expired"),
        ("mqtts", "tls", "localhost", {"ca_file": "stranger.pem"}, "certificate", "unknown authority"),
        ("mqtts", "tls", "localhost", {}, "certificate", "unknown authority"),
        ("mqtts", "elsewhere", "localhost", {"ca_file": "ca.pem"}, "certificate", "not for localhost"),
        ("mqtts", "elsewhere", "127.0.0.1", {"ca_file": "ca.pem"}, "certificate", "not for 127.0.0.1"),
        ("wss", "expired", "localhost", {"ca_file": "ca.pem"}, "certificate", "expired"),
        ("mqtts", "client", "localhost", {"ca_file": "ca.pem"}, "certificate", "client certificate"),
        (
            *("mqtts", "client", "localhost"),
            {"ca_file": "ca.pem", "cert_file": "intruder.pem", "key_file": "intruder.key"},
            *("certificate", "refuses our client certificate"),
        ),
        ("mqtts", "tls", "localhost", {"ca_file": "missing.pem"}, "certificate", "mqtt.ca_file cannot be read"),
        ("mqtts", "tls", "localhost", {"ca_file": "ca.key"}, "certificate", "mqtt.ca_file cannot be used"),
        (
            *("mqtts", "tls", "localhost", {"cert_file": "client.pem", "key_file": "server.key"}),
            *("certificate", "mqtt.cert_file and mqtt.key_file cannot be used"),
        ),
        ("mqtts", "plain", "localhost", {}, "tls", "does not speak TLS"),
        ("wss", "ws", "localhost", {}, "tls", "does not speak TLS"),
        ("ws", "plain", "localhost", {}, "lost", "WebSocket"),
    ],
)
def test_each_mistake_has_its_line(
    listeners: Listeners,
    pki: Pki,
    caplog: pytest.LogCaptureFixture,
    scheme: str,
    listener: str,
    host: str,
    settings: dict[str, str],
    reason: str,
    words: str,
) -> None:
    files = {name: pki / file for name, file in settings.items()}
    with rig(listeners.url(scheme, listener, host), retry_min=5, connect_timeout=2.0, **files) as it:
        error = it.fails()
    assert (error.reason, words in str(error)) == (reason, True), error
    assert error.remedy
    lines = [record for record in caplog.records if record.name == "outstation.link"]
    assert len(lines) == 1, lines
    assert lines[0].exc_info is None
    assert lines[0].levelno == (logging.WARNING if reason == "lost" else logging.ERROR)


def test_plain_mqtt_to_a_tls_port_is_told_what_to_do(listeners: Listeners) -> None:
    with rig(listeners.url("mqtt", "tls"), retry_min=5) as it:
        error = it.fails()
        assert "mqtts://" in error.remedy


def test_a_port_without_a_listener_and_a_name_without_an_address() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # bound, and not listening
        with rig(f"mqtt://127.0.0.1:{sock.getsockname()[1]}", retry_min=5) as it:
            error = it.fails()
            assert (error.reason, "listening" in error.remedy) == ("refused", True)
    with rig("mqtt://no-such-host.invalid", retry_min=5, connect_timeout=9) as it:
        error = it.fails(timeout=12)
        assert (error.reason, "no-such-host.invalid" in str(error)) == ("dns", True)


def test_a_wrong_password_is_named_and_a_right_one_works_after_the_file_was_corrected(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.touch(mode=0o600)
    file.write_text("wrong\n")
    with mosquitto(username="board", password="pässword 1") as broker:
        settings = {"username": "board", "password_file": file, "retry_min": 0.05}
        for version in ("3.1.1", "5"):
            with rig(broker.url, version=version, **settings) as it:
                error = it.fails()
                assert error.reason in ("credentials", "not_authorized")
                assert "password" in str(error)
                assert "wrong" not in str(error)
        file.write_text("pässword 1\n")
        with rig(broker.url, **settings) as it:
            it.link.start()
            it.until(lambda: it.link.up)
            it.drain_link()


def test_a_refused_user_is_not_tried_in_a_hurry() -> None:
    with mosquitto(username="board", password="right") as broker, rig(broker.url, retry_min=0.05) as it:
        it.fails()
        it.run_for(1.0)
        assert it.link.stats().failures == 1


# ---- outages


def test_a_broker_that_was_away_gets_everything_in_order_and_soon() -> None:
    with mosquitto() as broker, rig(broker.url, retry_min=0.1) as it:
        got: list[Message] = []
        with Subscriber(broker.url, "outstation/a/d/telemetry", on_message=got.append) as subscriber:
            source = it.manager.create_timer_event(0.01, lambda: it.put(1))
            it.link.start()
            it.until(lambda: it.publisher.stats().acknowledged > 30)
            # What Mosquitto has acknowledged and not passed on would die with it.
            subscriber.wait_for(lambda _all: len(seqs(got)) >= it.publisher.stats().acknowledged)
        broker.kill()
        it.until(lambda: it.downs)
        it.until(lambda: it.outbox.depth > 150, 30.0)
        broker.start()
        with Subscriber(broker.url, "outstation/a/d/telemetry", on_message=got.append) as subscriber:
            back = time.monotonic()
            # The subscriber is most likely there first, the pause being 0.1 s at least. If not, readings lack below.
            it.until(lambda: it.ups == 2)
            assert time.monotonic() - back < 1.0
            it.until(lambda: it.outbox.depth == 0)
            source.cancel()
            it.drain_link()
            last = it.outbox.next_seq("d") - 1
            subscriber.wait_for(lambda _all: seqs(got)[-1:] == [last])
        first_arrivals = list(dict.fromkeys(seqs(got)))
        assert first_arrivals == list(range(1, last + 1))
        assert it.outbox.dropped == {}


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_broker_that_goes_away_is_lost_over_tls_too_and_soon_found_again(how: str) -> None:
    """What is written into a TLS connection that was cut fails by an error of TLS; that needs nobody's help."""
    with mosquitto(tls=True) as broker:
        made = broker.certificates
        assert made is not None
        with rig(broker.url, ca_file=made.ca_file) as it:
            it.link.start()
            it.manager.create_timer_event(0.001, lambda: it.put(3))
            it.until(lambda: it.publisher.stats().acknowledged > 5)
            getattr(broker, how)()
            it.put(5)
            it.until(lambda: it.downs)
            assert it.error.reason == "lost", it.error
            broker.start()
            it.until(lambda: it.ups == 2)
            assert it.link.stats().failures < 4


def test_a_frozen_broker_is_left_when_it_does_not_acknowledge_and_nothing_is_lost() -> None:
    with (
        mosquitto() as broker,
        rig(broker.url, ack_timeout=0.3, connect_timeout=0.3) as it,
        Subscriber(broker.url, "outstation/a/d/telemetry") as subscriber,
    ):
        it.link.start()
        it.until(lambda: it.link.up)
        it.put(5)
        it.until(lambda: it.outbox.depth == 0)
        broker.freeze()
        it.put(5)
        it.until(lambda: it.downs)
        it.put(5)
        it.until(lambda: it.link.stats().failures >= 2)
        assert it.error.reason == "timeout"
        broker.thaw()
        it.until(lambda: it.outbox.depth == 0)
        messages = subscriber.wait_for(lambda all_: all_ if len(set(seqs(all_))) == 15 else None)
        assert list(dict.fromkeys(seqs(messages))) == list(range(1, 16))
        it.drain_link()


def test_without_a_clean_stop_the_broker_publishes_the_will() -> None:
    with mosquitto() as broker, rig(broker.url, retry_min=0.5) as it:
        it.link.start()
        it.until(lambda: it.link.up)
        for fd in os.listdir("/proc/self/fd"):
            if _peer(fd) == broker.port:
                with socket.socket(fileno=os.dup(int(fd))) as sock:
                    sock.shutdown(socket.SHUT_RDWR)
        with Subscriber(broker.url, "outstation/a/availability") as subscriber:
            it.until(lambda: it.downs)
            assert it.error.reason == "lost"
            subscriber.wait_for(lambda all_: b"offline" in [message.payload for message in all_])
            it.until(lambda: it.link.up)
            it.drain_link()


def _peer(fd: str) -> int | None:
    try:
        sock = socket.socket(fileno=os.dup(int(fd)))
    except OSError:
        return None
    with sock:
        try:
            return int(sock.getpeername()[1])
        except (OSError, IndexError):
            return None


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_of_two_agents_with_one_name_one_says_so_and_stands_back(version: str) -> None:
    with mosquitto() as broker, rig(broker.url, version=version) as one, rig(broker.url, version=version) as two:
        for it in (one, two):
            it.link.start()
        deadline = time.monotonic() + 10
        while not any(it.link.stats().failures and it.error.reason == "taken_over" for it in (one, two)):
            assert time.monotonic() < deadline
            one.manager.run_once(0.02)
            two.manager.run_once(0.02)
        before = one.ups + two.ups
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            one.manager.run_once(0.02)
            two.manager.run_once(0.02)
        assert one.ups + two.ups <= before + 2


# ---- arrays


def test_arrays_keep_each_devices_order_and_hold_no_more_than_batch() -> None:
    with (
        mosquitto() as broker,
        Subscriber(broker.url, "outstation/a/+/telemetry") as subscriber,
        rig(broker.url, batch=10) as it,
    ):
        for _ in range(45):
            it.put(1, "slow")
            it.put(2, "fast")
        it.link.start()
        it.until(lambda: it.outbox.depth == 0)
        it.drain_link()
        messages = subscriber.wait_for(lambda all_: all_ if len(all_) == 5 + 9 else None)
        for device, count in (("slow", 45), ("fast", 90)):
            arrays = _arrays(messages, device)
            assert [reading["seq"] for array in arrays for reading in array] == list(range(1, count + 1))
            assert max(map(len, arrays)) == 10


def _arrays(messages: list[Message], device: str) -> list[list[dict[str, int]]]:
    payloads = [json.loads(message.payload) for message in messages if f"/{device}/" in message.topic]
    assert all(isinstance(payload, list) for payload in payloads), "with batch over 1 a message is an array, always"
    return payloads


def test_auto_sends_single_objects_until_there_is_a_backlog() -> None:
    with (
        mosquitto() as broker,
        Subscriber(broker.url, "outstation/a/d/telemetry") as subscriber,
        rig(broker.url, batch="auto", inflight=10) as it,
    ):
        it.put(1000)
        it.link.start()
        it.until(lambda: it.outbox.depth == 0)
        it.put(1)
        it.drain_link()
        messages = subscriber.wait_for(lambda all_: all_ if all_ and b'"seq":1001,' in all_[-1].payload else None)
        payloads = [message.json() for message in messages]
        assert isinstance(payloads[-1], dict)
        assert 10 <= len(payloads) <= 60
        everything = [reading for each in payloads for reading in (each if isinstance(each, list) else [each])]
        assert [reading["seq"] for reading in everything] == list(range(1, 1002))


# ---- passwords


def credentials(**settings: object) -> tuple[bytes | None, list[str]]:
    notes: list[str] = []
    return read_password(MqttSettings.model_validate({"username": "u", **settings}), notes), notes


def test_a_password_comes_from_file_environment_or_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert credentials() == (None, [])
    file = tmp_path / "mqtt-password"
    file.touch(mode=0o600)
    file.write_bytes(b" two words \r\n")
    assert credentials(password_file=file) == (b" two words ", [])
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert credentials() == (b" two words ", [])
    monkeypatch.setenv("BROKER_PASSWORD", "fr\u00f6m env")
    assert credentials(password_env="BROKER_PASSWORD") == ("fr\u00f6m env".encode(), [])
    file.write_bytes(b"no newline\n\n")
    assert credentials() == (b"no newline\n", [])


def test_a_password_that_everyone_can_read_is_used_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"hunter2")
    file.chmod(0o644)
    password, notes = credentials(password_file=file)
    assert (password, len(notes)) == (b"hunter2", 1)
    with mosquitto() as broker, rig(broker.url, username="u", password_file=file) as it:
        it.link.start()
        it.until(lambda: it.link.up)
        it.drain_link()
    assert [record.levelname for record in caplog.records if "password.readable" in record.message] == ["WARNING"]
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("settings", [{"password_file": "/nonexistent/x"}, {"password_env": "NO_SUCH_VARIABLE"}])
def test_a_password_that_is_not_there_is_one_line_with_its_place(settings: dict[str, str]) -> None:
    with pytest.raises(LinkError) as caught:
        credentials(**settings)
    assert caught.value.reason == "credentials"
    assert next(iter(settings.values())) in str(caught.value)
