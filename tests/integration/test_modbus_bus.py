"""Modbus for real: pymodbus's own server in its own process, on a pty and on TCP, with units that do not answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.testing import Broker, Subscriber, children
from agent.testing.outstation import Outstation

SERVER = Path(__file__).parents[2] / "bench" / "peers" / "modbus_server.py"
Start = Callable[..., Outstation]
Serve = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start the server and wait until it listens: kind, where, further arguments."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        process = children.start(
            [sys.executable, str(SERVER), *arguments], output=subprocess.PIPE, env=children.environment()
        )
        running.append(process)
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said == b"ready\n", said + (process.stdout.read() if process.poll() is not None else b"")
        return process

    yield start
    for process in running:
        children.end(process)
        if process.stdout is not None:
            process.stdout.close()


def bus(port: str, units: int, **options: Any) -> dict[str, Any]:
    registers = [
        {"name": "number", "address": 0},
        {"name": "temperature", "address": 1, "type": "f32"},
        {"name": "setpoint", "address": 10, "type": "i16", "scale": 0.1, "low": 5, "high": 30, "writable": True},
    ]
    first = {"name": "u1", "address": 1, "register": registers}
    others = [{"name": f"u{n}", "address": n, "like": "u1"} for n in range(2, units + 1)]
    return {
        "name": "bus",
        "driver": "modbus",
        "port": port,
        "baudrate": 115200,
        "interval": "100ms",
        "answer_timeout": "50ms",
        "unit": [first, *others],
        **options,
    }


@pytest.mark.parametrize("kind", ["serial", "rtu", "tcp"])
def test_units_are_read_and_a_dead_one_is_told(
    kind: str, serve: Serve, outstation_start: Start, tmp_path: Path
) -> None:
    where = str(tmp_path / "tty") if kind == "serial" else str(children.free_port())
    port = {"serial": where, "rtu": f"socket://127.0.0.1:{where}", "tcp": f"tcp://127.0.0.1:{where}"}[kind]
    serve(kind, where, "--units", "3", "--dead", "2")
    outstation = outstation_start({"device": [bus(port, 3)]})
    status = outstation.wait_status(lambda s: s["devices"]["bus"]["faults"].get("timeout", {}).get("count", 0) >= 3)
    assert status["devices"]["bus"]["faults"]["timeout"]["last"].startswith("u2 (unit 2): no answer within 0.05 s")
    outstation.wait_readings("bus", 12)
    seen = [reading.fields for reading in outstation.readings("bus")]
    assert {"u1_online": True, "u1_number": 1, "u1_temperature": 22.5, "u1_setpoint": 18.0} in seen
    assert {"u3_online": True, "u3_number": 3, "u3_temperature": 24.5, "u3_setpoint": 18.0} in seen
    assert {"u2_online": False} in seen
    assert not any("u2_number" in fields for fields in seen)


def test_a_unit_dies_and_comes_back(serve: Serve, outstation_start: Start, tmp_path: Path) -> None:
    server = serve("serial", str(tmp_path / "tty"), "--units", "2", "--dying", "2")
    outstation = outstation_start({"device": [bus(str(tmp_path / "tty"), 2, longest_pause="200ms")]})
    outstation.next_reading("bus")
    os.kill(server.pid, signal.SIGUSR1)
    while (fields := outstation.next_reading("bus").fields) != {"u2_online": False}:
        assert fields.get("u1_online", fields.get("u2_online"))
    os.kill(server.pid, signal.SIGUSR2)
    while not outstation.next_reading("bus").fields.get("u2_online"):
        pass


def test_a_register_is_set_by_command(
    serve: Serve, outstation_start: Start, outstation_broker: Broker, tmp_path: Path
) -> None:
    serve("serial", str(tmp_path / "tty"), "--units", "2")
    outstation = outstation_start({"device": [bus(str(tmp_path / "tty"), 2)]})
    outstation.next_reading("bus")
    with Subscriber(outstation_broker.url, "outstation/test/response/set") as answers:
        answers.publish("outstation/test/bus/u2_setpoint/set", b"21.5")
        first = answers.next().json()
        answers.publish("outstation/test/bus/u2_setpoint/set", b"99")
        second = answers.next().json()
    assert first["status"] == "ok"
    assert second["status"] == "error"
    assert "at most 30" in second["error"]
    while outstation.next_reading("bus").fields.get("u2_setpoint") != 21.5:
        pass
