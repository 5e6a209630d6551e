"""`outstation watch` at a real broker: on a terminal, in a pipe, and with the agent itself."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import struct
import sys
import termios
from collections.abc import Iterator

import pytest
from started import ROOT, Started
from test_verify import CONTROLS, Plant

from agent.testing import Broker, PtyPort
from agent.testing.outstation import Outstation

COMMAND = [sys.executable, "-m", "agent", "watch"]


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker("mosquitto") as broker:
        yield broker


@pytest.fixture
def plant(broker: Broker) -> Iterator[Plant]:
    plant = Plant(broker)
    yield plant
    plant.close()


def watching(*args: str, terminal: bool = False) -> Started:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    for name in ("OUTSTATION_CONFIG", "COLUMNS", "LINES"):
        environment.pop(name, None)
    return Started([*COMMAND, *args], environment, terminal=terminal)


def test_on_a_terminal_it_fills_the_window_follows_its_size_and_ends_by_q(broker: Broker, plant: Plant) -> None:
    plant.raw("away/availability", b"offline", retain=True)
    plant.raw("away/pump/availability", b"online", retain=True)
    watch = watching("--url", broker.url, terminal=True)
    watch.wait_for(lambda output: "away/pump" in output)
    plant("near/weather", 1, 2, 5)
    watch.wait_for(lambda output: "near/weather" in output)
    screen = CONTROLS.sub("", watch.output).rpartition(" last reading")[2]
    assert screen.index("away/pump") < screen.index("near/weather")  # offline ones first
    seen = len(watch.output)
    fcntl.ioctl(watch.slave, termios.TIOCSWINSZ, struct.pack("4H", 10, 132, 0, 0))
    watch.wait_for(lambda output: "\u2500" * 132 in output[seen:])  # the line below the head is as wide as the window
    os.write(watch.fd, b"q")
    assert watch.end() == 0
    assert "\x1b[?1049h" in watch.output
    assert "\x1b[?1049l" in watch.output  # the screen that was there before is back
    last = CONTROLS.sub("", watch.output).splitlines()[-1].strip()
    assert last == "2 agents (1 offline), 2 devices (1 offline), 0.0 readings/s, 2 missing"


def test_in_a_pipe_it_is_json_lines_of_the_agent_itself() -> None:
    with (
        Broker("mosquitto") as broker,
        PtyPort() as device,
        Outstation(
            {"device": [{"name": "weather", "driver": "lines", "port": device.path, "format": "kv"}]}, broker
        ) as outstation,
    ):
        watch = watching("-c", str(outstation.config_path), "--json", "--every", "0s")
        watch.wait_for(lambda output: '"state":"online"' in output)
        device.send("temperature=21.5")
        watch.wait_for(lambda output: "21.5" in output)
        watch.process.send_signal(signal.SIGINT)
        assert watch.end() == 0
    said = [json.loads(line) for line in watch.output.splitlines()]
    last = said[-1]
    assert (last["agent"], last["device"], last["state"], last["missing"]) == ("test", "weather", "online", 0)
    assert last["fields"] == {"temperature": 21.5}


def test_bare_values_of_the_agent_itself() -> None:
    with (
        Broker("mosquitto") as broker,
        PtyPort() as device,
        Outstation(
            {
                "mqtt": {"format": "values"},
                "device": [{"name": "weather", "driver": "lines", "port": device.path, "format": "json"}],
            },
            broker,
        ) as outstation,
    ):
        watch = watching("-c", str(outstation.config_path), "--json", "--every", "0s")
        watch.wait_for(lambda output: '"device":"weather","state":"online"' in output)
        device.send('{"temperature": 21.5, "door": "open"}')
        watch.wait_for(lambda output: '"fields":{"temperature":21.5,"door":"open"}' in output)
        watch.process.send_signal(signal.SIGINT)
        assert watch.end() == 0


def test_without_a_broker_it_is_status_69() -> None:
    with Broker("mosquitto") as broker:
        url = broker.url
    watch = watching("--url", url)
    assert watch.end() == 69
    assert "outstation watch: " in watch.output
