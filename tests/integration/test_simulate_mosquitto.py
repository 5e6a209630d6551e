"""`outstation simulate` at a real broker: what it counts is what arrives, and nothing of it stays."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from started import ROOT, Started

from agent.tally import Tally
from agent.testing import Broker
from agent.testing.children import environment
from agent.testing.subscriber import Subscriber

COMMAND = [sys.executable, "-m", "agent", "simulate"]


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker("mosquitto") as broker:
        yield broker


def simulating(*args: str) -> Started:
    return Started([*COMMAND, *args], environment({"PYTHONPATH": str(ROOT)}))


def last(output: str) -> Any:
    """The JSON object, behind the lines of progress, which go to standard error."""
    return json.loads(output.splitlines()[-1])


def judged(subscriber: Subscriber) -> Tally:
    tally = Tally("outstation")
    for message in subscriber.messages:
        if message.topic.endswith("/telemetry"):
            tally.add(message.topic, message.payload, at=message.at, dup=message.dup, retained=message.retain)
    return tally


def test_what_it_counts_is_what_arrives_and_nothing_stays(broker: Broker) -> None:
    with Subscriber(broker.url, "outstation/#") as subscriber:
        simulation = simulating(
            *("--url", broker.url, "--agents", "12", "--devices", "3", "--rate", "5", "--ramp", "200ms"),
            *("--duration", "1s", "--name", "sim", "--json"),
        )
        assert simulation.end() == 0
        found = last(simulation.output)
        subscriber.wait_for(lambda messages: sum(m.topic.endswith("/telemetry") for m in messages) >= found["made"])
        tally = judged(subscriber)
    assert tally.holds
    assert tally.received == found["made"] == found["acknowledged"]
    assert len(tally.devices) == 36
    assert (found["connected"], found["lost"], found["retained_left"]) == (12, 0, 0)
    assert found["connecting"]["count"] == 12
    with Subscriber(broker.url, "#") as late:  # what is retained comes first, then what we say ourselves
        late.publish("ours", b"x")
        late.wait_for(lambda messages: any(m.topic == "ours" for m in messages))
        assert [m.topic for m in late.messages] == ["ours"]


def test_agents_come_back_when_the_broker_does_and_lose_nothing(broker: Broker) -> None:
    simulation = simulating(
        *("--url", broker.url, "--agents", "8", "--devices", "1", "--rate", "20", "--ramp", "0s"),
        *("--every", "100ms", "--json"),
    )
    simulation.wait_for(lambda output: "8 of 8 connected" in output)
    broker.kill()
    simulation.wait_for(lambda output: "0 of 8 connected" in output)
    broker.start()
    simulation.wait_for(lambda output: "8 of 8 connected" in output[output.rindex("0 of 8 connected") :])
    simulation.process.send_signal(signal.SIGINT)
    assert simulation.end() == 0
    found = last(simulation.output)
    assert found["away"]["count"] == 8
    assert found["lost"] == 0
    assert found["failures"]["count"] >= 8


def test_one_thread_serves_all_of_them(broker: Broker) -> None:
    simulation = simulating("--url", broker.url, "--agents", "60", "--ramp", "0s", "--every", "100ms")
    simulation.wait_for(lambda output: "60 of 60 connected" in output)
    with open(f"/proc/{simulation.process.pid}/status") as status:
        threads = next(int(text.split()[1]) for text in status if text.startswith("Threads:"))
    # The loop, the watcher of slow callbacks, and the pool.
    assert threads <= 2 + 16
    simulation.process.send_signal(signal.SIGTERM)
    assert simulation.end() == 0
    assert "60 of 60" in simulation.output


def test_no_broker_is_said_at_once() -> None:
    result = subprocess.run(
        [*COMMAND, "--url", "mqtt://127.0.0.1:1"], capture_output=True, text=True, timeout=30, cwd=ROOT, check=False
    )
    assert result.returncode == 69
    assert result.stderr.startswith("outstation simulate: ")
    assert "127.0.0.1:1" in result.stderr
    assert "Traceback" not in result.stderr
