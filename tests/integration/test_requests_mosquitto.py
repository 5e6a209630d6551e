"""Requests over a real broker: each of them once, MQTT 5's answers, a flood, and an agent that begins anew."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from agent.mqtt_settings import parse_url
from agent.testing import Broker, PtyPort
from agent.testing.outstation import Outstation

Start = Callable[..., Outstation]
MakeDevice = Callable[..., PtyPort]
ALL = ["ping", "status", "config", "read", "reload", "set", "log-level", "restart"]


def ask(outstation: Outstation, op: str, payload: bytes = b"{}") -> dict[str, Any]:
    outstation.subscriber.publish(f"{outstation.topic}/request/{op}", payload)
    answer: dict[str, Any] = outstation.subscriber.next(f"{outstation.topic}/response/{op}").json()
    return answer


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_each_request_is_answered(outstation_make_device: MakeDevice, outstation_start: Start, version: str) -> None:
    device = outstation_make_device()
    outstation = outstation_start(
        {
            "mqtt": {"version": version},
            "requests": {"enable": ALL},
            "device": [{"name": "a", "driver": "lines", "port": device.path, "format": "json"}],
        }
    )
    outstation.wait_online("a")
    assert ask(outstation, "ping", b'{"transaction": "t"}')["transaction"] == "t"
    assert ask(outstation, "status")["data"]["devices"]["a"]["state"] == "online"
    config = ask(outstation, "config")["data"]
    assert config["mqtt"]["version"] == version
    assert config["mqtt"]["password_file"] == "***"
    assert config["device"] == [{"name": "a", "driver": "lines", "port": device.path, "format": "json"}]
    assert ask(outstation, "reload")["data"]["restart"] == []
    refused = ask(outstation, "set", b'{"device": "a", "channel": "pump", "value": 1}')
    assert refused["error"] == "pump is no output of a; it has none"
    assert refused["data"] == {"device": "a", "channel": "pump"}
    level = ask(outstation, "log-level", b'{"level": "debug", "for": "1h"}')
    assert level["data"] == {"level": "debug", "before": "info", "for_s": 3600.0}
    assert ask(outstation, "log-level", b'{"level": "loud"}')["error"].startswith("level is one of error, warning")
    assert ask(outstation, "log-level", b'{"level": "info", "for": "soon"}')["status"] == "error"
    assert "no such request" in ask(outstation, "pong")["error"]
    counts = outstation.wait_status(lambda status: status["requests"]["done"] >= 5)["requests"]
    assert counts["refused"] == 4


def test_without_the_section_nothing_is_listened_to(
    outstation_make_device: MakeDevice, outstation_start: Start
) -> None:
    device = outstation_make_device()
    outstation = outstation_start({"device": [{"name": "a", "driver": "lines", "port": device.path, "format": "json"}]})
    outstation.wait_online("a")
    outstation.subscriber.publish(f"{outstation.topic}/request/ping", b"{}")
    device.send('{"n": 1}')
    outstation.next_reading("a")
    assert not [m for m in outstation.subscriber.messages if "/response/" in m.topic]
    assert "requests" not in outstation.wait_status(lambda _: True)


def test_a_device_is_read_now_and_its_reading_is_published_too(
    outstation_make_device: MakeDevice, outstation_start: Start
) -> None:
    sensor, printer = outstation_make_device(), outstation_make_device()
    sensor.answer(bytes.fromhex("ff0186000000000079"), bytes.fromhex("ff8602200000000058"))
    outstation = outstation_start(
        {
            "requests": {"enable": ["read"]},
            "device": [
                {"name": "air", "driver": "mhz19", "port": sensor.path, "interval": "1h"},
                {"name": "lines", "driver": "lines", "port": printer.path, "format": "json"},
            ],
        }
    )
    assert outstation.next_reading("air").seq == 1
    outstation.wait_online("lines")
    said = ask(outstation, "read", b'{"device": "air", "transaction": 1}')
    assert said == {"status": "ok", "data": {"device": "air", "readings": [{"co2": 544}]}, "transaction": 1}
    reading = outstation.next_reading("air")
    assert (reading.seq, reading.fields) == (2, {"co2": 544})
    assert ask(outstation, "read", b'{"device": "air", "transaction": 1}') == said, "once by transaction"
    sensor.unplug()
    outstation.wait_offline("air")
    assert ask(outstation, "read", b'{"device": "air"}')["error"].startswith("air is waiting: ")
    assert "its driver asks for nothing" in ask(outstation, "read", b'{"device": "lines"}')["error"]
    assert ask(outstation, "read", b'{"device": "none"}')["error"] == "there is no device none"
    assert outstation.wait_status(lambda status: status["requests"]["refused"] == 3)["devices"]["air"]["readings"] == 2


def test_a_restart_is_a_clean_stop_and_a_start_in_the_same_process(
    outstation_make_device: MakeDevice, outstation_start: Start
) -> None:
    device = outstation_make_device()
    outstation = outstation_start(
        {
            "requests": {"enable": ["restart", "ping"]},
            "device": [{"name": "a", "driver": "lines", "port": device.path, "format": "json"}],
        }
    )
    device.send('{"n": 1}')
    assert outstation.next_reading("a").seq == 1
    good = outstation.config_path.read_text()
    outstation.config_path.write_text(good + "\n[nonsense]\n")
    assert "it would not start again" in ask(outstation, "restart")["error"]
    outstation.config_path.write_text(good)
    said = ask(outstation, "restart", b'{"transaction": 1}')
    assert said == {"status": "ok", "data": {"restarting": True}, "transaction": 1}
    availability = f"{outstation.topic}/availability"

    def came_back(messages: list[Any]) -> bool:
        said = [m.payload for m in messages if m.topic == availability]
        return said[-2:] == [b"offline", b"online"]

    outstation.subscriber.wait_for(came_back)
    outstation.wait_log(r"agent\.restarting")
    device.send('{"n": 2}')
    reading = outstation.next_reading("a")
    assert (reading.seq, reading.extra) == (2, {}), "it was a clean end"
    assert ask(outstation, "ping")["status"] == "ok"
    assert outstation.terminate() == 0


# ---- MQTT 5


@contextmanager
def five(broker: Broker, topic: str) -> Iterator[tuple[Client, list[MQTTMessage]]]:
    """A client of MQTT 5 that listens to a topic, and what it got."""
    url = parse_url(broker.url)
    got: list[MQTTMessage] = []
    subscribed: list[int] = []
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    client.on_message = lambda _c, _u, message: got.append(message)
    client.on_subscribe = lambda _c, _u, mid, _codes, _properties: subscribed.append(mid)
    client.connect(url.host, url.port)
    try:
        client.subscribe(topic, options=SubscribeOptions(qos=1))
        pump(client, lambda: subscribed)
        yield client, got
    finally:
        client.disconnect()


def pump(client: Client, condition: Callable[[], object]) -> None:
    for _ in range(1000):
        client.loop(0.02)
        if condition():
            return
    raise AssertionError("it did not come about")


def properties(**said: Any) -> Properties:
    made = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    for name, value in said.items():
        setattr(made, name, value)
    return made


def test_response_topic_and_correlation_data(outstation_start: Start, outstation_broker: Broker) -> None:
    outstation = outstation_start({"mqtt": {"version": "5"}, "requests": {"enable": ["ping"]}, "device": []})
    topic = f"{outstation.topic}/request/ping"
    correlation = os.urandom(200)  # longer than a length of one byte
    with five(outstation_broker, "me/answers") as (client, got):
        client.publish(topic, b"{}", 1, properties=properties(ResponseTopic="me/answers", CorrelationData=correlation))
        pump(client, lambda: got)
        assert got[0].properties.CorrelationData == correlation
        assert b'"status":"ok"' in got[0].payload
        client.publish(topic, b"{}", 1, properties=properties(ResponseTopic=f"{outstation.topic}/relays/pump/set"))
        outstation.subscriber.next(f"{outstation.topic}/response/ping")
        answer = [m for m in outstation.subscriber.messages if m.topic.endswith("/response/ping")][-1].json()
        assert "the response topic is" in answer["error"]
    assert not [m for m in outstation.subscriber.messages if m.topic.endswith("/set")]


def test_a_thousand_requests_cost_no_reading(outstation_make_device: MakeDevice, outstation_start: Start) -> None:
    device = outstation_make_device()
    outstation = outstation_start(
        {
            "requests": {"enable": ["ping"]},
            "device": [{"name": "a", "driver": "lines", "port": device.path, "format": "json"}],
        }
    )
    outstation.wait_online("a")
    for number in range(1000):
        outstation.subscriber.publish(f"{outstation.topic}/request/ping", b'{"transaction": %d}' % number)
        if number % 100 == 0:
            device.send(json.dumps({"n": number}))
    assert [reading.seq for reading in outstation.wait_readings("a", 10)] == list(range(1, 11))
    counts = outstation.wait_status(lambda s: s["requests"]["done"] + s["requests"]["limited"] == 1000)["requests"]
    assert counts["done"] >= 20
    assert counts["limited"] > 0
