"""`outstation outbox` beside a real agent, and `drain` into real and awkward brokers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from mqtt_support import PUBLISH, Peer, ScriptedBroker
from started import ROOT, Started

from agent.codec_formats import lacks
from agent.model import Reading
from agent.outbox_store import Boot, Store
from agent.tally import Tally
from agent.testing import Broker, PtyPort, Subscriber
from agent.testing.outstation import Outstation

COMMAND = [sys.executable, "-m", "agent", "outbox"]
BOOT = Boot("00000000-0000-0000-0000-000000000001", 1_800_000_000 * 10**9, True)


def outbox(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)


def fill(path: Path, device: str, count: int, *, size: int = 10, first_row: int = 1) -> None:
    store = Store(path)
    store.open(BOOT)
    store.begin()
    body = b'{"text":"%b"}' % (b"x" * size)
    store.insert(Reading(device, n, n * 10**6, body, row=first_row + n - 1) for n in range(1, count + 1))
    store.number(device, count + 1, clean=True)
    store.note("agent", "greenhouse-1")
    store.commit()
    store.close()


def waiting(path: Path) -> list[int]:
    lines = outbox("export", "--file", str(path)).stdout.splitlines()
    return [json.loads(line)["seq"] for line in lines]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker("mosquitto") as broker:
        yield broker


def test_what_an_agent_could_not_send_goes_to_another_broker(broker: Broker) -> None:
    with (
        PtyPort() as device,
        Outstation(
            {
                "agent": {"stop_timeout": "1s"},
                "outbox": {"durability": "strict"},
                "device": [{"name": "weather", "driver": "lines", "port": device.path, "format": "kv"}],
            },
            broker,
        ) as outstation,
        Broker("mosquitto") as other,
    ):
        config = str(outstation.config_path)
        device.send("n=0")
        outstation.wait_readings("weather", 1)
        outstation.wait_status(lambda status: status["readings"]["written"] == 1)
        while outbox("export", "-c", config).stdout:  # what is acknowledged is removed a moment later
            assert outstation.running
        broker.kill()
        for number in range(1, 51):
            device.send(f"n={number}")
        # Beside the running agent, as often as anybody likes: what waits is what the device has said.
        while len(lines := outbox("export", "-c", config).stdout.splitlines()) < 50:
            assert outstation.running
        assert [json.loads(line)["fields"]["n"] for line in lines] == list(range(1, 51))
        report = json.loads(outbox("stats", "-c", config, "--json").stdout)
        assert (report["pid"], report["agent"], report["readings"]) == (str(outstation.pid), "test", 50)
        assert outbox("verify", "-c", config).returncode == 0
        for refused in (
            outbox("purge", "-c", config, "--before", "0s", "--yes"),
            outbox("drain", "-c", config, "--url", other.url),
        ):
            assert refused.returncode == 75
            assert f"is in use by process {outstation.pid}; stop it first" in refused.stderr
        assert outstation.terminate() == 0
        lines = outbox("export", "-c", config).stdout.splitlines()
        assert len(lines) == 50

        with Subscriber(other.url, "outstation/#") as subscriber:
            result = outbox("drain", "-c", config, "--url", other.url)
            assert (result.returncode, result.stdout, result.stderr) == (0, "sent 50\n", "")
            messages = subscriber.wait_for(lambda messages: len(messages) >= 50 and list(messages))
        assert {message.topic for message in messages} == {"outstation/test/weather/telemetry"}
        assert {(message.qos, message.retain) for message in messages} == {(1, False)}
        sent = [b'{"device":"weather",' + message.payload[1:] for message in messages]
        # But for a microsecond: each process measures the offset between the two clocks anew.
        stamp = re.compile(rb'"ts":"([^"]+)"')
        assert [stamp.sub(b"", line) for line in sent] == [stamp.sub(b"", line.encode()) for line in lines]
        for published, exported in zip(sent, lines, strict=True):
            then, now = (stamp.search(line) for line in (published, exported.encode()))
            assert then is not None
            assert now is not None
            apart = datetime.fromisoformat(then[1].decode()) - datetime.fromisoformat(now[1].decode())
            assert abs(apart) < timedelta(milliseconds=50)
        assert outbox("drain", "-c", config, "--url", other.url).stdout == "sent 0\n"

        broker.start()
        outstation.start()
        device.send("n=51")
        reading = outstation.wait_readings("weather", 2)[-1]
        assert (reading.fields, reading.seq, reading.extra) == ({"n": 51}, json.loads(lines[-1])["seq"] + 1, {})


def test_arrays_are_halved_until_they_fit_and_what_never_fits_stays(broker: Broker, path: Path) -> None:
    fill(path, "weather", 100, size=5000)
    fill(path, "image", 1, size=200_000, first_row=101)
    tally = Tally("plant/1")
    with Subscriber(broker.url, "plant/#") as subscriber:
        arguments = ["--file", str(path), "--url", broker.url, "--base", "plant/1", "--agent", "new", "--batch", "100"]
        result = outbox("drain", *arguments)
        messages = subscriber.wait_for(lambda messages: len(messages) >= 4 and list(messages))
    assert result.returncode == 1
    assert result.stdout == (
        f"sent 100; 1 left in {path}\n"
        "1 not taken: plant/1/new/image/telemetry of 200083 bytes is more than this broker takes\n"
    )
    for message in messages:
        assert tally.add(message.topic, message.payload)
    weather = tally.devices["new", "weather"]
    assert (weather.received, weather.lost, weather.disorder, weather.duplicates) == (100, 0, 0, 0)
    assert waiting(path) == [1]


@pytest.mark.parametrize("form", ["influx", "senml", "cbor"])
def test_a_backlog_goes_out_in_the_form_that_is_asked_for(form: str, broker: Broker, path: Path) -> None:
    if missing := lacks(form):
        pytest.skip(missing)
    fill(path, "weather", 25)
    with Subscriber(broker.url, "outstation/#") as subscriber:
        result = outbox("drain", "--file", str(path), "--url", broker.url, "--batch", "10", "--format", form)
        assert (result.returncode, result.stdout) == (0, "sent 25\n")
        messages = subscriber.wait_for(lambda messages: len(messages) >= 3 and list(messages))
    first = {"influx": b"w", "senml": b"[", "cbor": b"\x8a"}[form]
    assert messages[0].payload[:1] == first
    tally = Tally()
    assert all(tally.add(message.topic, message.payload) for message in messages)
    assert tally.received == tally.devices["greenhouse-1", "weather"].backfilled == 25
    assert tally.holds


def test_what_a_broker_refuses_by_name_stays(path: Path, tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic write outstation/greenhouse-1/weather/#\n")
    fill(path, "weather", 3)
    fill(path, "meter", 2, first_row=4)
    with Broker("mosquitto", config=f"acl_file {acl}") as broker:
        result = outbox("drain", "--file", str(path), "--url", broker.url, "--mqtt-version", "5")
    assert result.returncode == 1
    assert result.stdout.startswith(f"sent 3; 2 left in {path}\n2 not taken: 127.0.0.1:")
    assert "does not authorise" in result.stdout
    assert waiting(path) == [1, 2]


def test_only_what_was_acknowledged_is_removed_and_the_rest_comes_again_in_order(path: Path) -> None:
    fill(path, "weather", 300)
    arrived: list[int] = []

    def breaks(peer: Peer) -> None:
        peer.accept()
        packets = peer.publishes(100)  # all that may be in flight
        arrived.extend(json.loads(packet.payload)["seq"] for packet in packets)
        peer.ack(*packets[:40])
        arrived.extend(json.loads(packet.payload)["seq"] for packet in peer.publishes(40))
        peer.reset()

    def serves(peer: Peer) -> None:
        peer.accept()
        while True:
            packet = peer.packet()
            if packet.kind != PUBLISH:
                return
            arrived.append(json.loads(packet.payload)["seq"])
            peer.ack(packet)

    with ScriptedBroker(breaks, serves) as broker:
        result = outbox("drain", "--file", str(path), "--url", broker.url)
        assert broker.connections == 2
    assert (result.returncode, result.stdout) == (0, "sent 300\n")
    assert "link.down" in result.stderr
    assert arrived == [*range(1, 141), *range(41, 301)]
    assert waiting(path) == []


def test_ctrl_c_leaves_what_was_not_acknowledged(path: Path) -> None:
    fill(path, "weather", 50)

    def takes_ten(peer: Peer) -> None:
        peer.accept()
        packets = peer.publishes(50)
        peer.ack(*packets[:10])
        os.kill(drain.process.pid, signal.SIGINT)
        peer.until_closed()

    with ScriptedBroker(takes_ten) as broker:
        drain = Started([*COMMAND, "drain", "--file", str(path), "--url", broker.url], {**os.environ})
        assert drain.end() == 1
    assert drain.output == f"sent 10; 40 left in {path}\n"
    assert waiting(path) == list(range(11, 51))


def test_killed_it_has_removed_no_more_than_was_acknowledged(path: Path) -> None:
    fill(path, "weather", 3000)
    acknowledged = 0

    def kills(peer: Peer) -> None:
        nonlocal acknowledged
        peer.accept()
        held = peer.publishes(50)  # something is in flight all the time
        for _ in range(2500):
            held.append(peer.expect(PUBLISH))
            peer.ack(held.pop(0))
            acknowledged += 1
        drain.process.kill()

    with ScriptedBroker(kills) as broker:
        drain = Started([*COMMAND, "drain", "--file", str(path), "--url", broker.url], {**os.environ})
        assert drain.end() == -signal.SIGKILL
    left = waiting(path)
    assert left == list(range(3001 - len(left), 3001))
    # A window of 100 was open, and 1000 are removed at once.
    assert acknowledged - 1100 <= 3000 - len(left) <= acknowledged
    assert outbox("verify", "--file", str(path)).returncode == 0


def test_without_a_broker_nothing_changes(path: Path) -> None:
    fill(path, "weather", 3)
    result = outbox("drain", "--file", str(path), "--url", "mqtt://127.0.0.1:1")
    assert (result.returncode, result.stdout) == (69, "")
    assert result.stderr == (
        "outstation outbox: 127.0.0.1:1 refuses the connection; is the broker running, and listening on this port?\n"
    )
    assert waiting(path) == [1, 2, 3]


def test_an_outbox_that_does_not_say_whose_it_is(path: Path, broker: Broker) -> None:
    store = Store(path)
    store.open(BOOT)
    store.close()
    result = outbox("drain", "--file", str(path), "--url", broker.url)
    assert result.returncode == 65
    assert "does not say whose it is; say --agent ID" in result.stderr


def test_progress_is_shown_on_a_terminal(path: Path, broker: Broker) -> None:
    fill(path, "weather", 5000)
    drain = Started(
        [*COMMAND, "drain", "--file", str(path), "--url", broker.url, "--batch", "10"],
        {**os.environ, "TERM": "xterm"},
        terminal=True,
    )
    assert drain.end() == 0
    assert "100%" in drain.output
    assert "sent 5000" in drain.output
