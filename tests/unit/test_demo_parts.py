"""The demo's parts without processes: what is counted as lost or double, what the devices say, what is missing."""

from __future__ import annotations

import importlib.util
import json
import random
from typing import Any

import pytest

from agent import demo
from agent.demo_devices import CORRUPT_EVERY, Meter, Simulation, Weather
from agent.demo_tally import DemoTally
from agent.ports import SerialSettings, open_serial
from agent.testing import ManualClock, Message


def telemetry(device: str, *seqs: int) -> Message:
    readings: list[dict[str, Any]] = [{"ts": "", "seq": seq, "fields": {"n": seq}} for seq in seqs]
    payload = readings[0] if len(readings) == 1 else readings
    return Message(f"outstation/demo/{device}/telemetry", json.dumps(payload).encode(), 1, False, 0.0)


def test_gaps_and_repeats_are_told_apart() -> None:
    tally = DemoTally("outstation/demo", ("weather", "meter"))
    for message in (
        telemetry("weather", 7),
        telemetry("weather", 8, 9),
        telemetry("weather", 9),  # twice
        telemetry("weather", 13),  # 10, 11, 12 are missing
        telemetry("weather", 11),  # late, and not lost
        telemetry("meter", 1),
        telemetry("stranger", 1),
    ):
        tally.add(message)
    for strange in (b"\xff", b"[1]", b"{}", b"null"):  # somebody plays with mosquitto_pub
        assert not tally.add(Message("outstation/demo/weather/telemetry", strange, 0, False, 0.0))
    weather = tally.devices["weather"]
    assert (weather.received, weather.lost, weather.duplicates) == (5, 2, 1)
    assert tally.summary() == ("received 6 readings (weather 5, meter 1); lost 2, duplicates 1; faults 0")


def test_states_and_faults_come_from_what_the_agent_publishes() -> None:
    tally = DemoTally("outstation/demo", ("weather",))

    def say(topic: str, payload: bytes) -> None:
        tally.add(Message(f"outstation/demo/{topic}", payload, 1, False, 0.0))

    say("availability", b"online")
    say("weather/availability", b"online")
    faults = {
        "syntax": {"count": 2, "last": "not JSON", "bytes": "{x"},
        "number": {"count": 1, "last": "", "bytes": "y"},
    }
    say("status", json.dumps({"devices": {"weather": {"faults": faults}, "new": {"faults": {}}}}).encode())
    assert (tally.agent_state, tally.devices["weather"].state, tally.devices["weather"].faults) == (
        "online",
        "online",
        3,
    )
    assert tally.last_fault == "weather: syntax: {x"
    assert tally.topics == {
        "outstation/demo/availability",
        "outstation/demo/weather/availability",
        "outstation/demo/status",
    }


@pytest.mark.parametrize("source", [Weather, Meter])
def test_a_simulated_device_speaks_when_it_is_listened_to_and_spoils_a_line_now_and_then(
    source: type[Weather | Meter], tmp_path: Any
) -> None:
    clock = ManualClock()
    simulation = Simulation(source(random.Random(1)), str(tmp_path / "tty"), clock.now, seed=1)
    with simulation.line:
        simulation.tick()
        assert simulation.sent == 0  # nobody has the port open: a device does not wait
        port = open_serial(SerialSettings(port=simulation.line.path))
        lines = []
        for _ in range(3 * CORRUPT_EVERY):
            clock.advance(simulation.source.interval)
            simulation.tick()
            data = b""
            while not data.endswith(b"\r\n"):
                data += port.read()
            lines.append(data)
        port.close()
    assert (simulation.sent, simulation.spoilt) == (27, 3)
    good = 0
    for line in lines:
        try:
            text = line.decode()
            fields = json.loads(text) if source is Weather else dict(pair.split("=") for pair in text.split())
            good += {float(value) > 0 for value in fields.values()} == {True} and len(fields) == 3
        except ValueError:
            pass
    assert good >= 24


@pytest.mark.parametrize(("missing", "broker"), [("iotcore", None), ("rich", "mqtt://127.0.0.1")])
def test_without_its_extra_it_says_what_to_install(
    missing: str, broker: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda name: None if name == missing else importlib.util.find_spec(name))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert demo.main(broker=broker) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"outstation demo needs {missing}: pip install 'outstation[demo]'")


def test_the_meters_counter_never_goes_back() -> None:
    meter = Meter(random.Random(3))
    readings = [dict(pair.split("=") for pair in meter.line(t).split()) for t in range(0, 600, 2)]
    energies = [float(reading["energy"]) for reading in readings]
    assert energies == sorted(energies)
    assert all(225 < float(reading["voltage"]) < 235 for reading in readings)
