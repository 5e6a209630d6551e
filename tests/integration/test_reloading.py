"""SIGHUP: what changed in the configuration is restarted, and nothing else notices."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from agent.testing import PtyPort
from agent.testing.outstation import Outstation
from agent.testing.toml import dumps

MakeDevice = Callable[..., PtyPort]
Start = Callable[..., Outstation]


def lines(name: str, device: PtyPort, **more: Any) -> dict[str, Any]:
    return {"name": name, "driver": "lines", "port": device.path, "format": "json", **more}


def reload(outstation: Outstation, *devices: dict[str, Any], answer: str, **sections: Any) -> None:
    """Write a new configuration, send SIGHUP and wait for its line in the log."""
    outstation.config_path.write_text(dumps({**outstation.config, **sections, "device": list(devices)}))
    outstation.signal(signal.SIGHUP)
    outstation.wait_log(answer)


def test_devices_come_go_and_change_and_the_others_go_on(
    outstation_make_device: MakeDevice, outstation_start: Start
) -> None:
    steady, changing, leaving, coming = (outstation_make_device() for _ in range(4))
    outstation = outstation_start(
        {"device": [lines("steady", steady), lines("changing", changing), lines("leaving", leaving)]}
    )
    for device in (steady, changing, leaving):
        device.send('{"n": 1}')
    for name in ("steady", "changing", "leaving"):
        assert outstation.next_reading(name).seq == 1
    leaving.send('{"n": 2}')  # read before it goes
    scale = {"channels": {"n": {"scale": 10}}}
    reload(
        outstation,
        lines("steady", steady),
        lines("changing", changing, **scale),
        lines("coming", coming),
        answer=r"config\.reloaded added=coming removed=leaving changed=changing untouched=1",
    )
    outstation.wait_online("coming")
    for device in (steady, changing, coming):
        device.send('{"n": 2}')
    assert outstation.next_reading("steady").seq == 2
    changed = outstation.next_reading("changing")
    assert (changed.seq, changed.fields, changed.extra) == (2, {"n": 20}, {})
    assert outstation.next_reading("coming").seq == 1
    assert outstation.next_reading("leaving").fields == {"n": 2}
    gone = f"{outstation.topic}/leaving/availability"
    outstation.subscriber.wait_for(lambda ms: [m for m in ms if m.topic == gone][-1].payload == b"")
    status = outstation.wait_status(lambda s: set(s["devices"]) == {"steady", "changing", "coming"})
    assert status["link"]["connects"] == 1
    assert status["devices"]["changing"]["readings"] == 2, "its counts go on"
    info = [m for m in outstation.subscriber.messages if m.topic == f"{outstation.topic}/info"][-1].json()
    assert set(info["devices"]) == {"steady", "changing", "coming"}
    assert outstation.terminate() == 0


def test_a_device_that_comes_back_goes_on_counting(outstation_make_device: MakeDevice, outstation_start: Start) -> None:
    device, other = outstation_make_device(), outstation_make_device()
    outstation = outstation_start({"device": [lines("a", device), lines("b", other)]})
    device.send('{"n": 1}')
    assert outstation.next_reading("a").seq == 1
    reload(outstation, lines("b", other), answer=r"config\.reloaded removed=a")
    assert outstation.terminate() == 0
    # The next process does not know it at first, and the numbers are in the file alone.
    again = outstation_start({"outbox": outstation.config["outbox"], "device": [lines("b", other)]})
    reload(again, lines("b", other), lines("a", device), answer=r"config\.reloaded added=a")
    again.wait_online("a")
    device.send('{"n": 2}')
    reading = again.next_reading("a")
    assert (reading.seq, reading.extra) == (2, {})
    again.kill()
    # After a crash it goes on behind its range, which was on disk before the first reading.
    last = outstation_start({"outbox": outstation.config["outbox"], "device": [lines("a", device)]})
    device.send('{"n": 3}')
    reading = last.next_reading("a")
    assert reading.seq > 2
    assert reading.extra == {"resumed": True}


def test_a_wrong_file_changes_nothing(outstation_make_device: MakeDevice, outstation_start: Start) -> None:
    device = outstation_make_device()
    outstation = outstation_start({"device": [lines("a", device)]})
    reload(
        outstation,
        lines("a", device, fromat="csv"),
        lines("b", device),
        answer=r"config\.refused problems=1",
    )
    outstation.wait_log(r"config\.problem reason=.*outstation\.toml:\d+.*fromat")
    device.send('{"n": 1}')
    assert outstation.next_reading("a").seq == 1
    os.unlink(outstation.config_path)
    outstation.signal(signal.SIGHUP)
    outstation.wait_log(r"config\.problem reason=.*outstation\.toml.*(no such file|does not exist|not found)")
    device.send('{"n": 2}')
    assert outstation.next_reading("a").seq == 2


def test_what_needs_a_restart_is_named(outstation_make_device: MakeDevice, outstation_start: Start) -> None:
    device = outstation_make_device()
    outstation = outstation_start({"device": [lines("a", device)]})
    reload(
        outstation,
        lines("a", device),
        answer=r"config\.restart_needed keys=loop\.slow_after,",
        loop={"slow_after": "60ms", "hang_after": "20s"},
    )
    outstation.wait_log(r"config\.unchanged devices=1")


# ---- asked from the command line


def command(outstation: Outstation, *arguments: str) -> tuple[int, str]:
    """Run `outstation ARGUMENTS -c ...` beside the agent, with its environment: status and what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "agent", *arguments, "-c", str(outstation.config_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_running_agent_can_be_asked(outstation_make_device: MakeDevice, outstation_start: Start) -> None:
    device, other = outstation_make_device(), outstation_make_device()
    outstation = outstation_start({"device": [lines("a", device)]})
    device.send('{"n": 1}')
    outstation.next_reading("a")
    outstation.wait_status(lambda s: s["readings"]["written"] == 1)
    status, said = command(outstation, "status")
    assert status == 0, said
    assert "a  online      1 readings, 0 faults" in said
    status, said = command(outstation, "status", "--json")
    assert json.loads(said)["devices"]["a"]["state"] == "online"

    outstation.config_path.write_text(dumps({**outstation.config, "device": [lines("a", device), lines("b", other)]}))
    status, said = command(outstation, "reload", "--dry-run")
    assert (status, said.splitlines()[0]) == (0, "+ device b (lines)")
    status, planned = command(outstation, "plan", "--exit-code")
    assert (status, planned) == (1, f"against the running agent\n{said}")
    assert command(outstation, "plan")[0] == 0
    assert command(outstation, "reload") == (0, "started: b\n")
    assert command(outstation, "reload") == (0, "nothing has changed\n")
    assert command(outstation, "plan", "--exit-code")[0] == 0
    outstation.wait_online("b")
    other.unplug()
    outstation.wait_offline("b")
    status, said = command(outstation, "status")
    assert status == 1
    assert "! b  waiting" in said

    outstation.config_path.write_text("[mqtt]\nqos = 7\n")
    status, said = command(outstation, "reload")
    assert status == 78
    assert "mqtt.qos" in said
    outstation.config_path.write_text(dumps(outstation.config))
    outstation.terminate()
    status, said = command(outstation, "status")
    assert status == 69
    assert "no agent runs with this outbox" in said
    status, said = command(outstation, "plan", "--exit-code")
    assert status == 1
    assert said.startswith("against nothing: no agent runs with this outbox")
