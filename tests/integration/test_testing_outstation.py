"""The running agent that tests are given: what it promises to a test, on the real agent."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.testing import AgentEndedError, Broker, Outstation, PtyPort

Start = Callable[..., Outstation]


def config(device: PtyPort, **more: Any) -> dict[str, Any]:
    return {"device": [{"name": "weather", "driver": "lines", "port": device.path, "format": "json"}], **more}


def test_each_reading_is_given_once_in_order_with_all_it_says(serial_device: PtyPort, outstation_start: Start) -> None:
    outstation = outstation_start(config(serial_device))
    for n in range(3):
        serial_device.send(f'{{"n": {n}}}')
    got = [outstation.next_reading("weather") for _ in range(3)]
    assert [reading.fields for reading in got] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert [reading.seq for reading in got] == [1, 2, 3]
    assert [reading.at for reading in got] == sorted(reading.at for reading in got)
    assert outstation.readings("weather") == got
    assert outstation.readings("other") == []


def test_batches_are_taken_apart(serial_device: PtyPort, outstation_start: Start) -> None:
    outstation = outstation_start(config(serial_device, mqtt={"batch": 10}))
    serial_device.send(b"".join(b'{"n": %d}\n' % n for n in range(25)))
    readings = outstation.wait_readings("weather", 25)
    assert [reading.fields["n"] for reading in readings] == list(range(25))
    arrived = [m for m in outstation.subscriber.messages if m.topic.endswith("/telemetry")]
    assert len(arrived) < 25


def test_a_device_that_is_not_there_is_not_waited_for(serial_device: PtyPort, outstation_start: Start) -> None:
    serial_device.unplug()
    outstation = outstation_start(config(serial_device))
    outstation.wait_offline("weather")
    serial_device.replug()
    serial_device.send('{"n": 1}')  # waits for the agent, which waits for the port
    assert outstation.next_reading("weather").fields == {"n": 1}


def test_status_and_log_are_waited_for(serial_device: PtyPort, outstation_start: Start) -> None:
    outstation = outstation_start(config(serial_device))
    assert outstation.status()["agent"] == "test"
    serial_device.send("{no json")
    report = outstation.wait_status(lambda status: status["devices"]["weather"]["faults"])
    assert report["devices"]["weather"]["faults"]["syntax"]["count"] == 1
    assert outstation.wait_log(r"device\.fault .*kind=(\w+)")[1] == "syntax"
    with pytest.raises(AssertionError, match=r"no such a status report(.|\n)*the last status report: \{'ts'"):
        outstation.wait_status(lambda _: False, timeout=0.01)
    with pytest.raises(AssertionError, match=r"not logged within 0.01 s: never; it logged:(.|\n)*agent\.started"):
        outstation.wait_log("never", timeout=0.01)


def test_it_ends_cleanly_and_starts_again(serial_device: PtyPort, outstation_start: Start) -> None:
    outstation = outstation_start(config(serial_device))
    serial_device.send('{"n": 1}')
    outstation.next_reading("weather")
    pid = outstation.pid
    assert outstation.terminate() == 0
    outstation.wait_offline()
    assert not outstation.running
    outstation.start()
    assert outstation.pid != pid
    serial_device.send('{"n": 2}')
    assert outstation.next_reading("weather").fields == {"n": 2}
    outstation.kill()
    assert outstation.wait() == -signal.SIGKILL
    outstation.wait_offline()  # by the Will


def test_a_report_of_an_earlier_start_is_not_taken_for_the_new_ones(
    serial_device: PtyPort, outstation_start: Start
) -> None:
    outstation = outstation_start(config(serial_device))
    before = outstation.wait_status(lambda status: status["uptime_s"] > 0.5)
    outstation.kill()
    outstation.start(wait=False)
    assert outstation.status()["uptime_s"] < before["uptime_s"]


def test_who_waits_for_an_agent_that_ends_learns_it_at_once(serial_device: PtyPort, outstation_start: Start) -> None:
    outstation = outstation_start(config(serial_device))
    outstation.signal(signal.SIGKILL)
    with pytest.raises(AgentEndedError, match=r"ended with status -9; it logged:(.|\n)*device\.online"):
        outstation.next_reading("weather", timeout=60)
    with pytest.raises(AgentEndedError, match="ended with status -9"):
        outstation.wait_log("never", timeout=60)


def test_toml_text_will_do_and_secured_brokers_too(serial_device: PtyPort, outstation_start: Start) -> None:
    with Broker(client_certificates=True, username="u", password="secret") as broker:
        outstation = outstation_start(
            f"""
            [agent]
            id = "greenhouse"
            [mqtt]
            base = "plant/outstation"
            [[device]]
            name = "weather"
            driver = "lines"
            format = "scalar"
            port = "{serial_device.path}"
            """,
            broker=broker,
        )
        assert outstation.topic == "plant/outstation/greenhouse"
        serial_device.send("21.5")
        assert outstation.next_reading("weather").fields == {"value": 21.5}
        assert "secret" not in outstation.log
        assert "secret" not in outstation.config_path.read_text()


def test_several_agents_share_a_broker(outstation_make_device: Callable[..., PtyPort], outstation_start: Start) -> None:
    devices = [outstation_make_device() for _ in range(2)]
    agents = [outstation_start(config(device, agent={"id": f"a{n}"})) for n, device in enumerate(devices)]
    for n, device in enumerate(devices):
        device.send(f'{{"n": {n}}}')
    assert [agent.next_reading("weather").fields["n"] for agent in agents] == [0, 1]
    assert len(agents[0].readings("weather")) == 1


def test_nothing_is_left_when_the_test_process_is_killed(tmp_path: Path) -> None:
    """An agent that outlives its killed test would hold ports and answer to the next one's broker."""
    script = tmp_path / "killed.py"
    script.write_text(
        "import os, signal\n"
        "from agent.testing import Broker, Outstation\n"
        "agent = Outstation({}, Broker().start()).start()\n"
        "print(agent.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "TMPDIR": str(tmp_path)}
    result = subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True, timeout=30)
    assert result.returncode == -9, result.stderr
    assert ended(int(result.stdout)), "the agent outlived its test"


def ended(pid: int, timeout: float = 15.0) -> bool:
    """Whether a process that is not our child ends in time: its pidfd becomes readable."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], timeout)[0])
    finally:
        os.close(descriptor)
