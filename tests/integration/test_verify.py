"""`outstation verify` at a real broker: what is planted there is found, whatever way it comes, and nothing else is."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from started import ROOT, Started

from agent.testing import Broker, PtyPort, Subscriber, children
from agent.testing.outstation import Outstation

CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COMMAND = [sys.executable, "-m", "agent", "verify"]


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker("mosquitto") as broker:
        yield broker


class Plant:
    """Publishes as an agent would, or as none would."""

    def __init__(self, broker: Broker, base: str = "outstation") -> None:
        self._subscriber = Subscriber(broker.url, "none").start()
        self._base = base
        self._connects = 1

    def __call__(self, device: str, *seqs: int, array: bool = False, **marks: Any) -> None:
        readings = [
            {"ts": "2026-11-24T00:37:00.123456Z", "seq": seq, "fields": {"n": seq, "device": device}, **marks}
            for seq in seqs
        ]
        for payload in [readings] if array else readings:
            self.raw(f"{device}/telemetry", json.dumps(payload).encode())

    def raw(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self._subscriber.publish(f"{self._base}/{topic}", payload, retain=retain)

    def reconnected(self) -> None:
        self._connects += 1
        self._subscriber.wait_subscribed(self._connects)

    def close(self) -> None:
        self._subscriber.close()


@pytest.fixture
def plant(broker: Broker) -> Iterator[Plant]:
    plant = Plant(broker)
    yield plant
    plant.close()


class Verify(Started):
    """A verification under way, which listens when the constructor returns."""

    def __init__(self, *args: str, terminal: bool = False, **env: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100", **env}
        environment.pop("OUTSTATION_CONFIG", None)
        super().__init__([*COMMAND, *args], environment, terminal=terminal)
        self.wait_for(lambda output: "listening" in output)

    def saw(self, *lines: str) -> None:
        """Wait until each of these has been shown: what was published before has arrived then."""
        self.wait_for(lambda output: all(re.search(line, CONTROLS.sub("", output)) for line in lines))

    def verdict(self) -> tuple[int, str]:
        """End it as Ctrl-C does: status and the last line."""
        self.process.send_signal(signal.SIGINT)
        return self.end(), self.output.splitlines()[-1]


def test_what_is_planted_is_found(broker: Broker, plant: Plant) -> None:
    verify = Verify("--url", broker.url)
    plant("greenhouse-1/weather", 41, 42, 42, 45, 46)  # one twice, two missing
    plant("greenhouse-1/meter", 1, 2, 3, array=True)
    plant("greenhouse-1/meter", 5, 4)  # out of order
    plant("lab/scale", 7, 8)
    plant("lab/scale", 1000, resumed=True)
    plant("lab/scale", 1001, clock="unsynced")
    plant.raw("lab/scale/telemetry", b"\x1b[2J garbage")
    plant("lab/end", 1)
    verify.saw("lab/end: the first reading has seq 1", r"greenhouse-1/weather: .*missing 2 \(43\.\.44\)")
    status, last = verify.verdict()
    assert status == 1
    lines = verify.output.splitlines()
    assert lines[-6:] == [
        "greenhouse-1/meter: received 5 (seq 1..5), missing 0, duplicates 0, out of order 1",
        "greenhouse-1/weather: received 4 (seq 41..46), missing 2 (43..44), duplicates 1, out of order 0",
        "lab/end: received 1 (seq 1..1), missing 0, duplicates 0, out of order 0",
        "lab/scale: received 4 (seq 7..1001), missing 0, duplicates 0, out of order 0, skipped at a resumption 991, "
        "unsynced 1",
        r"1 message that no agent sends; the first: outstation/lab/scale/telemetry b'\x1b[2J garbage': not JSON "
        "(unexpected character, expected a JSON value: line 1 column 1 (char 0))",
        "NOT PROVED: 2 lost, 1 out of order",
    ]
    assert last == lines[-1]
    assert "\x1b" not in verify.output


def test_a_backlog_that_comes_later_settles_what_is_missing_now(broker: Broker, plant: Plant) -> None:
    verify = Verify("--url", broker.url, "--agent", "greenhouse-1", "--every", "0s")
    plant("another/weather", 1, 5)  # of no interest
    plant("greenhouse-1/weather", 1, 2, 10, 11)
    verify.saw(r"greenhouse-1/weather: .*missing 7 \(3\.\.9\)")
    plant("greenhouse-1/weather", 3, 4, 5, 6, 7, 8, 9, 9, array=True, backfill=True)
    plant("greenhouse-1/weather", 12)
    verify.saw(r"greenhouse-1/weather: .*missing 0, duplicates 1, out of order 0", "received 12 of 1 device")
    assert verify.verdict() == (0, "PROVED: of 12 readings none is lost and none out of order; 1 came twice")
    assert "another" not in verify.output


def test_without_a_session_what_nobody_heard_proves_nothing(broker: Broker, plant: Plant) -> None:
    verify = Verify("--url", broker.url)
    plant("g/weather", 1, 2)
    verify.saw("g/weather: the first reading")
    broker.kill()
    verify.saw("the connection is lost")
    broker.start()
    verify.saw(r"connected again: what was sent meanwhile is not heard .*--client-id NAME")
    plant.reconnected()
    plant("g/weather", 5)
    plant("g/weather", 7)
    verify.saw(r"g/weather: .*missing 1 \(6\), .*not heard 2")
    plant("g/weather", 6, backfill=True)
    verify.saw(r"g/weather: received 5 .*missing 0")
    status, last = verify.verdict()
    assert (status, last) == (
        0,
        "PROVED: of 5 readings none is lost and none out of order; 2 skipped or not heard prove nothing",
    )
    assert "1 reconnection to a broker that had not queued for us" in verify.output


def test_with_a_client_id_the_broker_queues_for_it_and_forgets_it_at_the_end() -> None:
    with Broker("mosquitto") as broker:
        plant = Plant(broker)
        verify = Verify("--url", broker.url, "--client-id", "verify-1")
        plant("g/weather", 1, 2)
        verify.saw("g/weather: the first reading")
        verify.process.send_signal(signal.SIGSTOP)
        # Another client of this id makes the broker close the connection (MQTT 3.1.1, section 3.1.4), and keeps the
        # session as it is.
        thief = Subscriber(broker.url, "none", client_id="verify-1", persistent=True).start()
        thief.close()
        plant("g/weather", 3, 4)
        verify.process.send_signal(signal.SIGCONT)
        verify.saw("the connection is lost", "connected again: the broker has queued what was sent meanwhile")
        plant("g/weather", 5)
        plant("g/end", 1)
        verify.saw("g/end: the first reading")
        assert verify.verdict() == (0, "PROVED: of 6 readings none is lost and none out of order")
        kept: list[bool] = []
        with Subscriber(broker.url, "none", client_id="verify-1", persistent=True, on_up=kept.append):
            assert kept == [False]
        plant.close()


def test_a_broker_that_has_lost_the_session_is_told(broker: Broker, plant: Plant) -> None:
    verify = Verify("--url", broker.url, "--client-id", "verify-1")
    plant("g/weather", 1)
    verify.saw("g/weather: the first reading")
    broker.restart()  # without persistence
    verify.saw(r"connected again: what was sent meanwhile is not heard and proves nothing \(it has lost this session\)")
    assert verify.verdict()[0] == 0


def test_the_end_without_a_broker_or_without_a_reading_is_no_proof(broker: Broker, plant: Plant) -> None:
    verify = Verify("--url", broker.url)
    status, last = verify.verdict()
    assert (status, last[:15]) == (66, "NOTHING PROVED:")
    verify = Verify("--url", broker.url)
    plant("g/weather", 1)
    verify.saw("g/weather: the first reading")
    broker.kill()
    verify.saw("the connection is lost")
    status, last = verify.verdict()
    assert (status, last[:22]) == (69, "NOT PROVED TO THE END:")
    broker.start()


def test_json_for_scripts(broker: Broker, plant: Plant) -> None:
    plant.raw("g/weather/telemetry", b'{"ts":"","seq":999,"fields":{}}', retain=True)
    plant.raw("g/weather/availability", b"online", retain=True)
    verify = Verify("--url", broker.url, "--json", "--client-id", "v", "--every", "0s")
    plant("g/weather", 1, 2, 4)
    verify.saw("received 3 of 1 device")
    status, last = verify.verdict()
    assert status == 1
    report = json.loads(last)
    assert report["retained"] == 1
    assert report["connection"] == {"up": True, "persistent": True, "connects": 1, "unqueued": 0}
    assert (report["holds"], report["status"], report["lost"], report["verdict"]) == (
        False,
        1,
        1,
        "NOT PROVED: 1 lost",
    )
    (weather,) = report["devices"]
    assert (weather["agent"], weather["device"], weather["received"], weather["missing"]) == (
        "g",
        "weather",
        3,
        [[3, 3]],
    )
    assert weather["last_fields"] == {"n": 4, "device": "g/weather"}


def test_on_a_terminal_it_is_a_table_until_q(broker: Broker, plant: Plant) -> None:
    verify = Verify("--url", broker.url, terminal=True)
    plant.raw("g/weather/availability", b"online", retain=True)
    plant("g/weather", 1, 2, 2, 5)
    plant("g/weather", 100, resumed=True)
    verify.saw(r"g/weather +online +4 +2 +1 +0 +\d\.\ds +skipped at a resumption 94; n 100", "NOT PROVED: 2 lost")
    plant("g/weather", 3, 4, backfill=True)
    verify.saw(r"g/weather +online +6 +0 +1 +0 ", "PROVED: of 6 readings")
    os.write(verify.fd, b"q")
    assert verify.end() == 0
    plain = CONTROLS.sub("", verify.output)
    for word in ("device", "state", "received", "missing", "dup", "disorder", "age", "last reading"):
        assert word in plain
    assert plain.splitlines()[-1].startswith("PROVED: of 6 readings none is lost and none out of order; 1 came twice")


def test_whoever_stops_reading_ends_it(broker: Broker, plant: Plant) -> None:
    verify = Verify("--url", broker.url)
    plant("g/weather", 1)
    verify.saw("g/weather: the first reading")
    os.close(verify.fd)
    plant("g/meter", 1)
    assert verify.process.wait(20) == 0


def test_it_proves_what_the_agent_does() -> None:
    """The real agent, the broker and the agent of its configuration: nothing but -c is needed."""
    with (
        Broker(username="greenhouse", password="s3cret") as broker,
        PtyPort() as device,
        Outstation(
            {"device": [{"name": "weather", "driver": "lines", "port": device.path, "format": "kv"}]}, broker
        ) as outstation,
    ):
        verify = Verify("-c", str(outstation.config_path), "--every", "0s")
        assert "outstation/test/+/telemetry" in verify.output
        for number in range(200):
            device.send(f"n={number}")
        verify.saw("received 200 of 1 device")
        status, last = verify.verdict()
    assert (status, last) == (0, "PROVED: of 200 readings none is lost and none out of order")
    assert "s3cret" not in verify.output


def test_tls_and_credentials_and_what_is_said_when_they_are_wrong() -> None:
    with Broker(username="ann", password="s3cret", client_certificates=True) as broker:
        made = broker.certificates
        assert made is not None
        good = {
            "--url": broker.url,
            "--username": "ann",
            "--password-env": "SECRET",
            "--ca-file": str(made.ca_file),
            "--cert-file": str(made.client_cert_file),
            "--key-file": str(made.client_key_file),
        }

        def run(secret: str = "s3cret", **changes: str | None) -> subprocess.CompletedProcess[str]:
            options = good | {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
            words = [word for name, value in options.items() if value is not None for word in (name, value)]
            return subprocess.run(
                [*COMMAND, *words, "--seconds", "0.2"],
                env={**os.environ, "SECRET": secret},
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=30,
            )

        assert run().returncode == 66
        for result, words in (
            (run(secret="wrong"), "check --username, the password"),
            (run(ca_file=None), "signed by an unknown authority; set --ca-file to its CA's certificate"),
            (run(cert_file=None, key_file=None), "certificate"),
            (run(url=broker.url.replace("mqtts", "mqtt")), "outstation verify: localhost:"),
            (run(ca_file="/nowhere"), "--ca-file cannot be read"),
        ):
            assert (result.returncode, result.stdout) == (69, ""), result.stderr
            assert words in result.stderr
            assert len(result.stderr.splitlines()) == 1
            assert "s3cret" not in result.stderr


@pytest.mark.parametrize("path", ["", "/mqtt"])
def test_over_websockets(path: str) -> None:
    port = children.free_port()
    with Broker("mosquitto", config=f"listener {port} 127.0.0.1\nprotocol websockets\nallow_anonymous true") as broker:
        plant = Plant(broker)
        verify = Verify("--url", f"ws://127.0.0.1:{port}{path}")
        plant("g/weather", 1)
        verify.saw("g/weather: the first reading")
        assert verify.verdict()[0] == 0
        plant.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mqtt://127.0.0.1:1", "127.0.0.1:1 refuses the connection; is the broker running"),
        ("mqtt://no-such-host.invalid", "no-such-host.invalid"),
    ],
)
def test_a_broker_that_cannot_be_reached_is_told_in_one_line(url: str, words: str) -> None:
    result = subprocess.run([*COMMAND, "--url", url], cwd=ROOT, capture_output=True, text=True, timeout=40, check=False)
    assert (result.returncode, result.stdout) == (69, "")
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
