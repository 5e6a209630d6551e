"""What Home Assistant is told, and that its templates find the values: rendered by the engine that it uses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jinja2
import orjson
import pytest

from agent.codec import JsonCodec, Topics
from agent.codec_values import ValuesCodec
from agent.driver import Channel, Output
from agent.homeassistant import AGENT, Discovery, template
from agent.homeassistant_announcer import Announcer
from agent.model import Reading

TOPICS = Topics("box")
TELEMETRY = "homeassistant/device/outstation_box_weather/config"
ITSELF = "homeassistant/device/outstation_box/config"


class Broker:
    """What an announcer publishes and asks for."""

    def __init__(self, *, enabled: bool = True, bare: bool = False, **devices: Any) -> None:
        self.retained: dict[str, bytes] = {}
        self.published: list[str] = []
        self.filters: list[str] = []
        self.infos = 0
        self.devices = devices or {"weather": device()}
        self.announcer = Announcer(
            "box",
            TOPICS,
            self.devices,
            enabled=enabled,
            prefix="homeassistant",
            bare=bare,
            retain=self.retain,
            subscribe=self.filters.append,
            changed=self.changed,
        )

    def retain(self, topic: str, payload: bytes, *, again: bool = False) -> None:
        if again or self.retained.get(topic) != payload:
            self.retained[topic] = payload
            self.published.append(topic)

    def changed(self) -> None:
        self.infos += 1

    def say(self, body: dict[str, Any], name: str = "weather") -> None:
        self.announcer.readings([Reading(name, 1, 0, orjson.dumps(body))])

    def remember(self, homeassistant: Any, **declared: list[str]) -> None:
        """What the broker gives back of an earlier run."""
        table = {name: {"channels": [{"name": channel} for channel in channels]} for name, channels in declared.items()}
        payload = orjson.dumps({"homeassistant": homeassistant, "devices": table})
        self.announcer.message(TOPICS.info, payload, True)

    def components(self, topic: str = TELEMETRY) -> dict[str, Any]:
        found: dict[str, Any] = orjson.loads(self.retained[topic])["cmps"]
        return found


def device(*channels: Channel, outputs: tuple[Output, ...] = (), driver: str = "lines") -> Any:
    return SimpleNamespace(channels=channels, outputs=outputs, config=SimpleNamespace(driver=driver))


def render(text: str, value: Any, state: str = "before") -> str:
    return jinja2.Environment().from_string(text).render(value_json=value, this=SimpleNamespace(state=state))


# ---- templates


@pytest.mark.parametrize("name", ["temperature", "t 1", 'a"b', "a'b", "größe", "a\\b", "{{ 1 }}", "{% x"])
@pytest.mark.parametrize("array", [False, True])
def test_a_template_finds_its_channel_in_a_real_message(name: str, array: bool) -> None:
    readings = [Reading("d", seq, 0, orjson.dumps({name: seq + 0.5, "other": 1})) for seq in range(1 + array)]
    clock = SimpleNamespace(settle=lambda: (0, True))
    message = orjson.loads(JsonCodec().encode(readings, clock, 0, array))
    assert render(template(name, "number"), message) == ("1.5" if array else "0.5")


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [("number", 0, "0"), ("number", None, "None"), ("bool", True, "ON"), ("bool", False, "OFF"), ("text", "a", "a")],
)
def test_values_as_home_assistant_takes_them(kind: str, value: Any, text: str) -> None:
    assert render(template("x", kind), {"fields": {"x": value}}) == text


@pytest.mark.parametrize(("kind", "text"), [("number", ""), ("bool", ""), ("text", "before")])
def test_a_reading_without_a_channel_leaves_its_entity_alone(kind: str, text: str) -> None:
    assert render(template("x", kind), {"fields": {"y": 1}}) == text


def test_bare_values_have_a_topic_and_a_template_each() -> None:
    outputs = (
        Output("lamp", "switch"),
        Output("level", "number", low=0, high=9),
        Output("say", "text"),
        Output("go", "button"),
    )
    broker = Broker(bare=True, weather=device(Channel("t 1", "°C"), outputs=outputs))
    broker.announcer.start()
    broker.say({"t 1": 21.5, "door": True, "note": "dry", "lamp": False, "availability": 1})
    assert "state_topic" not in orjson.loads(broker.retained[TELEMETRY])
    reading = Reading("weather", 1, 0, orjson.dumps({"t 1": 21.5, "door": True, "note": None, "lamp": False}))
    sent = {topic: payload.decode() for topic, payload in ValuesCodec(TOPICS).messages(reading)}
    components = broker.components()
    assert components["availability"]["state_topic"] == "outstation/box/weather/availability_"
    assert "state_topic" not in components["go"]
    for name, state in (("t_1", "21.5"), ("door", "ON"), ("note", "None"), ("lamp", "OFF")):
        found = components[name]
        shown = jinja2.Environment().from_string(found["value_template"]).render(value=sent[found["state_topic"]])
        assert shown == state
    assert {"state_topic", "command_topic", "value_template"} <= components["level"].keys() & components["say"].keys()


# ---- messages


def test_a_device_is_announced_once_its_channels_are_known() -> None:
    declared = Channel("temperature", "°C", -40, 85, "temperature")
    broker = Broker(weather=device(declared, Channel("door", device_class="door")))
    broker.announcer.start()
    assert broker.filters == ["outstation/box/info", "homeassistant/status"]
    assert TELEMETRY not in broker.retained
    broker.say({"temperature": 21.5, "door": True, "note": "dry", "nothing": None})
    payload = orjson.loads(broker.retained[TELEMETRY])
    assert payload["dev"] == {
        "ids": ["outstation_box_weather"],
        "name": "box weather",
        "mf": "Outstation",
        "mdl": "lines",
        "sw": "0.1.0",
        "via_device": "outstation_box",
    }
    assert payload["o"]["name"] == "outstation"
    assert payload["state_topic"] == "outstation/box/weather/telemetry"
    assert payload["availability_mode"] == "all"
    assert [entry["topic"] for entry in payload["availability"]] == [
        "outstation/box/availability",
        "outstation/box/weather/availability",
    ]
    components = payload["cmps"]
    assert set(components) == {"temperature", "door", "note"}
    temperature = components["temperature"]
    assert temperature.pop("value_template") == template("temperature", "number")
    assert temperature == {
        "p": "sensor",
        "name": "temperature",
        "unique_id": "outstation_box_weather_temperature",
        "default_entity_id": "sensor.box_weather_temperature",
        "state_class": "measurement",
        "unit_of_measurement": "°C",
        "device_class": "temperature",
    }
    assert (components["door"]["p"], components["door"]["device_class"]) == ("binary_sensor", "door")
    assert components["note"]["p"] == "sensor"
    assert "state_class" not in components["note"]
    assert broker.infos == 1
    assert broker.announcer.info() == {"weather": {"temperature": "number", "door": "bool", "note": "text"}}


def test_what_is_known_is_not_announced_again() -> None:
    broker = Broker()
    broker.announcer.start()
    broker.say({"a": 1})
    before = list(broker.published)
    broker.say({"a": 2})
    broker.say({"a": "text now"})
    assert broker.published == before
    broker.say({"a": 2, "b": 1})
    assert broker.published == [*before, TELEMETRY]


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (Output("relay"), {"p": "switch", "payload_on": "ON", "payload_off": "OFF"}),
        (
            Output("level", "number", "%", 0, 100, whole=True),
            {"p": "number", "min": 0, "max": 100, "step": 1, "unit_of_measurement": "%"},
        ),
        (Output("mode", "text", choices=("day", "night")), {"p": "select", "options": ["day", "night"]}),
        (Output("text", "text", longest=1000), {"p": "text", "max": 255}),
        (Output("reset", "button"), {"p": "button", "payload_press": "press"}),
    ],
)
def test_an_output_can_be_set_from_the_start(output: Output, expected: dict[str, Any]) -> None:
    broker = Broker(weather=device(outputs=(output,)))
    broker.announcer.start()
    component = broker.components()[output.name]
    assert expected.items() <= component.items()
    assert component["command_topic"] == f"outstation/box/weather/{output.name}/set"
    for word in ("payload_on", "payload_off", "payload_press"):
        if word in component:
            output.checked(component[word])  # it is what the command path takes


def test_the_agent_announces_itself() -> None:
    broker = Broker()
    broker.announcer.start()
    payload = orjson.loads(broker.retained[ITSELF])
    assert payload["state_topic"] == "outstation/box/status"
    assert set(payload["cmps"]) == set(AGENT)
    assert {component["entity_category"] for component in payload["cmps"].values()} == {"diagnostic"}


def test_home_assistant_came_back() -> None:
    broker = Broker()
    broker.announcer.start()
    broker.say({"a": 1})
    broker.published.clear()
    broker.announcer.message("homeassistant/status", b"offline", False)
    assert broker.published == []
    broker.announcer.message("homeassistant/status", b"online", False)
    assert broker.published == [ITSELF, TELEMETRY]


# ---- what an earlier run has left


def test_kinds_outlive_a_restart() -> None:
    broker = Broker()
    broker.announcer.start()
    broker.remember({"weather": {"a": "number", "b": "text", "c": "nonsense"}})
    assert set(broker.components()) == {"a", "b"}
    assert broker.infos == 1


def test_a_device_that_left_the_configuration_is_taken_back() -> None:
    broker = Broker()
    broker.announcer.start()
    broker.remember({"old": {"a": "number"}, "weather": {}})
    assert broker.retained["homeassistant/device/outstation_box_old/config"] == b""


def test_a_channel_that_left_the_configuration_is_taken_back() -> None:
    broker = Broker(weather=device(Channel("a")))
    broker.announcer.start()
    broker.remember({"weather": {"a": "number", "b": "bool", "wire": "number"}}, weather=["a", "b"])
    components = broker.components()
    assert components["b"] == {"p": "binary_sensor"}, "only the platform: remove it"
    assert set(components) == {"a", "b", "wire"}
    broker.say({"b": True})  # it comes over the wire after all
    assert len(broker.components()["b"]) > 1


def test_switched_off_it_takes_all_back() -> None:
    broker = Broker(enabled=False)
    broker.announcer.start()
    assert broker.filters == ["outstation/box/info"]
    broker.say({"a": 1})
    assert broker.retained == {}
    broker.remember({"weather": {"a": "number"}})
    assert broker.retained == {TELEMETRY: b"", ITSELF: b""}
    assert broker.announcer.info() is None


@pytest.mark.parametrize(
    "payload", [b"", b"\xff", b"[]", b"{}", b'{"homeassistant": 1}', b'{"homeassistant": {"a": 1}, "devices": {}}']
)
def test_strangers_on_our_topic_do_no_harm(payload: bytes) -> None:
    broker = Broker()
    broker.announcer.start()
    before = dict(broker.retained)
    broker.announcer.message(TOPICS.info, payload, True)
    assert broker.retained == before


def test_one_device_cannot_flood_home_assistant(caplog: pytest.LogCaptureFixture) -> None:
    broker = Broker()
    broker.announcer.start()
    for number in range(0, 300, 50):
        broker.say({f"c{n}": n for n in range(number, number + 50)})
    assert len(broker.components()) == 200
    assert caplog.text.count("homeassistant.full") == 1


def test_names_are_that_of_one_agent_and_one_device() -> None:
    assert Discovery("a", TOPICS, "ha").topic("b") == "ha/device/outstation_a_b/config"
