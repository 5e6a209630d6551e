"""Discovery at a real broker: announced, kept over a restart, and taken back when it leaves the configuration."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jinja2

from agent.testing import Broker, PtyPort
from agent.testing.outstation import Outstation
from agent.testing.subscriber import Subscriber

Start = Callable[..., Outstation]
MakeDevice = Callable[..., PtyPort]
HOUSE = "homeassistant/device/outstation_test"


def at(house: Subscriber, topic: str, condition: Callable[[bytes], bool]) -> bytes:
    """Wait until the last message at a topic is as it should be; its payload."""

    def found(messages: list[Any]) -> list[bytes]:
        return [p for p in [message.payload for message in messages if message.topic == topic][-1:] if condition(p)]

    return house.wait_for(found)[0]


def lines(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "driver": "lines", "port": path, "format": "json"}


def test_discovery(outstation_broker: Broker, outstation_start: Start, outstation_make_device: MakeDevice) -> None:
    weather, tank = outstation_make_device(), outstation_make_device()
    on = {"homeassistant": {"discovery": "on"}}
    both = {**on, "device": [lines("weather", weather.path), lines("tank", tank.path)]}
    agent = outstation_start(both)
    with Subscriber(outstation_broker.url, "homeassistant/#") as house:
        weather.send('{"temperature": 21.5, "rain": false}')
        tank.send('{"level": 3}')
        payload = json.loads(at(house, f"{HOUSE}_weather/config", lambda p: b"temperature" in p))
        message = agent.subscriber.next(payload["state_topic"]).json()
        text = payload["cmps"]["temperature"]["value_template"]
        assert jinja2.Environment().from_string(text).render(value_json=message) == "21.5"
        at(house, f"{HOUSE}_tank/config", lambda p: b"level" in p)
        at(house, f"{HOUSE}/config", lambda p: b"diagnostic" in p)

        before = len(house.messages)
        house.publish("homeassistant/status", b"online")
        house.wait_for(lambda m: sum(one.topic.startswith(HOUSE) for one in m[before:]) >= 3)
        agent.terminate()

        agent = outstation_start({**on, "device": [lines("weather", weather.path)]})
        at(house, f"{HOUSE}_tank/config", lambda p: p == b"")
        before = len(house.messages)
        house.publish("homeassistant/status", b"online")
        again = house.wait_for(lambda m: [one for one in m[before:] if one.topic == f"{HOUSE}_weather/config"])
        kept = again[0].json()
        assert set(kept["cmps"]) == {"temperature", "rain"}, "known before the first reading of this run"
        agent.terminate()

        agent = outstation_start({"homeassistant": {"discovery": "remove"}, "device": [lines("weather", weather.path)]})
        at(house, f"{HOUSE}_weather/config", lambda p: p == b"")
        at(house, f"{HOUSE}/config", lambda p: p == b"")
        assert agent.terminate() == 0
