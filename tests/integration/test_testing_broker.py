"""The brokers that tests are given, and the subscriber that judges."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.testing import Broker, BrokerError, Message, Subscriber


@pytest.fixture(params=["mosquitto", "iotcore"])
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    try:
        made = Broker(request.param)
    except BrokerError as error:
        pytest.skip(str(error))
    with made:
        yield made


def listening(port: int) -> set[str]:
    """Local addresses in LISTEN on that port, of IPv4 and IPv6, by /proc/net (hex as the kernel writes it)."""
    found = set()
    for family in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{family}").read_text().splitlines()[1:]:
            fields = line.split()
            address, _, number = fields[1].rpartition(":")
            if int(number, 16) == port and fields[3] == "0A":
                found.add(address)
    return found


def test_it_listens_on_loopback_alone(broker: Broker) -> None:
    assert listening(broker.port) == {"0100007F"}  # 127.0.0.1


def test_messages_pass_with_topic_payload_and_time(broker: Broker) -> None:
    seen: list[Message] = []
    with Subscriber(broker.url, "a/#", on_message=seen.append) as subscriber:
        for n in range(30):
            subscriber.publish(f"a/{n % 3}", b"%d" % n)
        subscriber.publish("b/0", b"not ours")
        messages = subscriber.wait_for(lambda got: len(got) >= 30 and got)
        assert [m.payload for m in messages] == [b"%d" % n for n in range(30)]
        assert [m.at for m in messages] == sorted(m.at for m in messages)
        assert [subscriber.next("a/1").payload for _ in range(2)] == [b"1", b"4"]
        assert subscriber.next("a/+").payload == b"0"
        assert subscriber.next("a/1").payload == b"7"
        with pytest.raises(AssertionError, match=r"nothing for x within 0.01 s; 30 messages arrived, the last of them"):
            subscriber.next("x", timeout=0.01)
        assert seen == subscriber.messages


def test_a_retained_message_waits_for_the_subscriber(broker: Broker) -> None:
    with Subscriber(broker.url, "none") as publisher:
        publisher.publish("kept", b"1", retain=True)
    with Subscriber(broker.url, "kept") as subscriber:
        message = subscriber.next("kept")
        assert (message.payload, message.retain) == (b"1", True)


def test_killed_and_started_it_is_back_on_its_port_and_the_subscriber_too(broker: Broker) -> None:
    url, pid = broker.url, broker.pid
    with Subscriber(broker.url, "a") as subscriber:
        broker.kill()
        assert not broker.running
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", broker.port), 1).close()
        broker.start()
        assert (broker.url, broker.running) == (url, True)
        assert broker.pid != pid
        with Subscriber(broker.url, "none") as publisher:
            subscriber.wait_subscribed(2)
            publisher.publish("a", b"again")
        assert subscriber.next("a").payload == b"again"


def test_frozen_it_takes_connections_and_answers_nothing(broker: Broker) -> None:
    broker.freeze()
    with pytest.raises((TimeoutError, ConnectionError)):
        Subscriber(broker.url, "a").start(0.3)
    broker.thaw()
    with Subscriber(broker.url, "a") as subscriber:
        subscriber.publish("a", b"1")


def test_closed_it_leaves_no_process_and_no_file() -> None:
    with Broker("mosquitto") as broker:
        pid = broker.pid
        home = Path(Path(f"/proc/{pid}/cmdline").read_text().split("\0")[2]).parent
        assert (home / "mosquitto.conf").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not home.exists()


def test_a_password_is_asked_for_and_the_refusal_is_told() -> None:
    with Broker(username="greenhouse", password="pass word") as broker:
        with pytest.raises(ConnectionError, match="refuses the connection: Not authorized"):
            Subscriber(broker.url, "a").start()
        with Subscriber(broker.url, "a", username="greenhouse", password="pass word") as subscriber:
            subscriber.publish("a", b"1")
        url = broker.url.replace("//", "//greenhouse:pass%20word@")
        with Subscriber(url, "a") as subscriber:
            subscriber.publish("a", b"1")


def test_tls_is_verified_and_a_client_certificate_may_be_asked_for() -> None:
    with Broker(client_certificates=True) as broker:
        made = broker.certificates
        assert made is not None
        with pytest.raises(ConnectionError, match=r"CERTIFICATE_VERIFY_FAILED|self-signed"):
            Subscriber(broker.url, "a").start()
        options = {"ca_file": str(made.ca_file)}
        with pytest.raises((ConnectionError, TimeoutError)):
            Subscriber(broker.url, "a", **options).start(1)
        options |= {"cert_file": str(made.client_cert_file), "key_file": str(made.client_key_file)}
        with Subscriber(broker.url, "a", **options) as subscriber:
            subscriber.publish("a", b"1")


def test_a_broker_that_does_not_start_says_what_it_wrote() -> None:
    with pytest.raises(BrokerError, match="nonsense_option"), Broker(config="nonsense_option 1"):
        pass


def test_a_port_that_is_taken_is_told_and_not_tried_elsewhere() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        broker = Broker(port=taken.getsockname()[1])
        with pytest.raises(BrokerError, match="in use"):
            broker.start()
        broker.close()


def test_its_process_dies_with_ours_even_by_sigkill(tmp_path: Path) -> None:
    """What a killed CI job leaves behind: nothing."""
    script = tmp_path / "killed.py"
    script.write_text(
        "import os, signal\n"
        "from agent.testing import Broker\n"
        "broker = Broker().start()\n"
        "print(broker.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "TMPDIR": str(tmp_path)}
    result = subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True, timeout=30)
    assert result.returncode == -9, result.stderr
    pid = int(result.stdout.split()[0])
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    assert select.select([descriptor], [], [], 10)[0], "the broker outlived its test"
    os.close(descriptor)
