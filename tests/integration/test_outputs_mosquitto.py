"""Commands from a real broker to a driver's outputs, and their answers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.testing import Broker
from agent.testing.outstation import Outstation

ROOT = Path(__file__).parents[2]
Start = Callable[..., Outstation]

DRIVER = '''
from agent.driver import Channel, Driver, Output, Sample


class Relays(Driver):
    """Two outputs in memory, of a distribution of its own."""

    channels = (Channel("pump"), Channel("level"))
    outputs = (Output("pump"), Output("level", "number", "%", 0, 100))

    def start(self, port):
        pass

    def set(self, output, value, done):
        if value == 13:
            self.ctx.lost("its cable is out")
            return
        self.ctx.emit(Sample({output: value}))
        done(None)

    def link_changed(self, up):
        self.ctx.emit(Sample({"link": up}))
'''


@pytest.fixture
def plugin(tmp_path: Path) -> dict[str, str]:
    """An installed distribution that offers the driver; the environment in which the agent finds it."""
    (tmp_path / "outstation_relays.py").write_text(DRIVER)
    metadata = tmp_path / "outstation_relays-1.0.dist-info"
    metadata.mkdir()
    (metadata / "entry_points.txt").write_text("[outstation.drivers]\nrelays = outstation_relays:Relays\n")
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}


def command(outstation: Outstation, channel: str, payload: str, *, device: str = "relays") -> dict[str, Any]:
    """Publish a command; its answer."""
    outstation.subscriber.publish(f"{outstation.topic}/{device}/{channel}/set", payload.encode())
    answer: dict[str, Any] = outstation.subscriber.next(f"{outstation.topic}/response/set").json()
    return answer


def test_outputs_are_declared_set_and_answered(outstation_start: Start, plugin: dict[str, str]) -> None:
    outstation = outstation_start({"device": [{"name": "relays", "driver": "relays"}]}, env=plugin)
    outstation.wait_online("relays")
    info = outstation.subscriber.next(f"{outstation.topic}/info").json()
    assert [output["name"] for output in info["devices"]["relays"]["outputs"]] == ["pump", "level"]
    assert info["devices"]["relays"]["outputs"][1]["high"] == 100
    assert [reading.fields["link"] for reading in outstation.wait_readings("relays", 2)] == [False, True]
    for _ in range(2):
        outstation.next_reading("relays")

    assert command(outstation, "pump", '{"value": "on", "transaction": "a1"}') == {
        "status": "ok",
        "data": {"device": "relays", "channel": "pump", "value": True},
        "transaction": "a1",
    }
    assert outstation.next_reading("relays").fields == {"pump": True}
    assert command(outstation, "level", "101")["error"] == "101 is out of range: at least 0 and at most 100 %"
    assert command(outstation, "valve", "on")["error"] == "valve is no output of relays; its outputs: pump, level"
    assert command(outstation, "level", "13")["error"] == "relays is waiting: its cable is out"
    outstation.wait_online("relays")
    status = outstation.wait_status(lambda status: status["commands"]["refused"] == 3)
    assert status["commands"]["done"] == 1


def test_a_retained_command_is_refused_at_each_connection(
    outstation_start: Start, outstation_broker: Broker, plugin: dict[str, str]
) -> None:
    from agent.testing import Subscriber

    topic = "outstation/test/relays/pump/set"
    with Subscriber(outstation_broker.url, topic) as other:
        other.publish(topic, b"on", retain=True)
        outstation = outstation_start({"device": [{"name": "relays", "driver": "relays"}]}, env=plugin)
        answer = outstation.subscriber.next("outstation/test/response/set")
        assert answer.json()["status"] == "error"
        assert "retained" in answer.json()["error"]
        assert not answer.retain
        # Who clears it sends an empty message, which is none either.
        other.publish(topic, b"", retain=True)
        assert outstation.subscriber.next("outstation/test/response/set").json()["error"].startswith("an empty message")
    assert command(outstation, "pump", "off")["status"] == "ok"
    readings = [reading.fields for reading in outstation.wait_readings("relays", 3)]
    assert readings == [{"link": False}, {"link": True}, {"pump": False}], "and not once was it on"


def test_commands_work_again_on_the_next_connection(
    outstation_start: Start, outstation_broker: Broker, plugin: dict[str, str]
) -> None:
    outstation = outstation_start({"device": [{"name": "relays", "driver": "relays"}]}, env=plugin)
    outstation.wait_readings("relays", 2)
    outstation_broker.restart()
    outstation.subscriber.wait_subscribed(2)
    outstation.wait_status(lambda status: status["link"]["connects"] == 2)
    assert command(outstation, "pump", "on")["data"]["value"] is True


def test_who_has_no_outputs_subscribes_to_nothing(outstation_start: Start, plugin: dict[str, str]) -> None:
    devices = [{"name": "relays", "driver": "relays"}, {"name": "host", "driver": "host"}]
    outstation = outstation_start({"device": devices}, env=plugin)
    outstation.subscriber.publish(f"{outstation.topic}/host/uptime/set", b"5")
    assert command(outstation, "pump", json.dumps({"value": 1, "transaction": 2}))["transaction"] == 2
