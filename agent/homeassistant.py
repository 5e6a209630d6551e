"""What Home Assistant is told of this board: one retained message a device, with all its channels in it. Pure.

Source: Home Assistant, "MQTT", section "Device discovery payload"; platforms sensor, binary_sensor, switch, number,
select, text and button. A channel becomes an entity once its kind is known, which its first value tells.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import orjson

from agent import __version__
from agent.codec import Topics, channel_topic
from agent.model import Channel, Value
from agent.outputs import Output

Kind: TypeAlias = Literal["number", "bool", "text"]

MOST = 200
"""Entities of one device: beyond these its channels are no names but data."""

ORIGIN = {"name": "outstation", "sw": __version__}

# One message is a reading, or an array of them with batch over 1: the newest is the last.
_NEWEST = "{% set r = value_json if value_json is mapping else value_json | last %}"

# mqtt.format = "values": a topic a channel, and in it the bare value. What is null is unknown.
_BARE: dict[str, str] = {
    "number": "{{ 'None' if value == 'null' else value }}",
    "text": "{{ 'None' if value == 'null' else value }}",
    "bool": "{{ 'ON' if value == 'true' else 'OFF' }}",
}

# What a reading does not say leaves an entity as it is: sensors of numbers and binary sensors pass an empty text over,
# a sensor of text would show it.
_TEMPLATES: dict[str, str] = {
    "number": "{{{{ r.fields[{0}] if {0} in r.fields else '' }}}}",
    "text": "{{{{ r.fields[{0}] if {0} in r.fields else this.state }}}}",
    "bool": "{{{{ ('ON' if r.fields[{0}] else 'OFF') if {0} in r.fields else '' }}}}",
}

# What Home Assistant takes for a total alone ("Sensor entity", "Available device classes"): the reading of a meter,
# unless the driver or the configuration says otherwise.
_TOTALS = {"energy": "total_increasing", "gas": "total_increasing", "water": "total_increasing", "volume": "total"}

AGENT: dict[str, tuple[str, dict[str, Any]]] = {
    "uptime": ("uptime_s", {"unit_of_measurement": "s", "device_class": "duration"}),
    "reconnects": ("link.reconnects", {"state_class": "total_increasing"}),
    "readings": ("readings.written", {"state_class": "total_increasing"}),
    "dropped": ("readings.dropped", {"state_class": "total_increasing"}),
    "waiting": ("outbox.waiting", {"state_class": "measurement"}),
    "outbox": ("outbox.bytes", {"unit_of_measurement": "B", "device_class": "data_size"}),
    "memory": ("process.rss_bytes", {"unit_of_measurement": "B", "device_class": "data_size"}),
    "cpu": ("process.cpu_s", {"unit_of_measurement": "s", "state_class": "total_increasing"}),
}
"""Entities of the agent itself: name -> where the status report has it, and what it is."""


def kind_of(value: Value) -> Kind | None:
    """What a channel with this value is; None: null tells nothing."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else None


def template(name: str, kind: str) -> str:
    """How Home Assistant finds a channel in a message (Jinja; a JSON string is one of Jinja's as well)."""
    return _NEWEST + _TEMPLATES[kind].format(orjson.dumps(name).decode())


class Discovery:
    """Messages of one agent: topics and payloads."""

    def __init__(self, agent: str, topics: Topics, prefix: str, *, bare: bool = False) -> None:
        """bare: readings go out as bare values, one topic a channel (``mqtt.format = "values"``)."""
        self._agent = agent
        self._bare = bare
        self._topics = topics
        self._prefix = prefix

    def topic(self, device: str | None) -> str:
        """Where a device is announced; None: the agent itself."""
        return f"{self._prefix}/device/{self._id(device)}/config"

    def _id(self, device: str | None) -> str:
        return f"outstation_{self._agent}" + (f"_{device}" if device else "")

    def agent(self) -> bytes:
        """The agent itself, with the figures of its status report as diagnostics."""
        components = {
            key: {
                "p": "sensor",
                "name": key.capitalize() if key != "cpu" else "CPU time",
                "unique_id": f"{self._id(None)}_status_{key}",
                "entity_category": "diagnostic",
                "value_template": f"{{{{ value_json.{path} }}}}",
                **more,
            }
            for key, (path, more) in AGENT.items()
        }
        return self._payload(None, "agent", [self._topics.availability], self._topics.status, components)

    def device(
        self,
        name: str,
        driver: str,
        channels: Sequence[Channel],
        outputs: Sequence[Output],
        kinds: Mapping[str, Kind],
        gone: Mapping[str, Kind],
    ) -> bytes | None:
        """One device. kinds: of each channel that has had a value; gone: channels that are to be removed.

        None: nothing is known of it yet.
        """
        declared = {channel.name: channel for channel in channels}
        settable = {output.name: output for output in outputs}
        components: dict[str, Any] = {}
        for channel, kind in gone.items():
            components[channel_topic(channel)] = {"p": _platform(kind)}
        for output in outputs:
            components[channel_topic(output.name)] = self._output(name, output)
        for channel, kind in kinds.items():
            if channel not in settable and len(components) < MOST:
                components[channel_topic(channel)] = self._sensor(name, declared.get(channel, Channel(channel)), kind)
        if not components:
            return None
        available = [self._topics.availability, self._topics.device_availability(name)]
        state = None if self._bare else self._topics.telemetry(name)
        return self._payload(name, driver, available, state, components)

    def _payload(
        self, device: str | None, model: str, available: list[str], state: str | None, components: dict[str, Any]
    ) -> bytes:
        """state: the topic that all of them share; None: each has its own."""
        about = {
            "ids": [self._id(device)],
            "name": f"{self._agent} {device}" if device else self._agent,
            "mf": "Outstation",
            "mdl": model,
            "sw": __version__,
        }
        if device:
            about["via_device"] = self._id(None)
        return orjson.dumps(
            {
                "dev": about,
                "o": ORIGIN,
                "availability": [{"topic": topic} for topic in available],
                "availability_mode": "all",
                **({} if state is None else {"state_topic": state}),
                "qos": 1,
                "cmps": components,
            }
        )

    def _entity(self, device: str, channel: str, platform: str) -> dict[str, Any]:
        slug = re.sub("[^a-z0-9_]+", "_", f"{self._agent}_{device}_{channel}".lower())
        return {
            "p": platform,
            "name": channel,
            "unique_id": f"{self._id(device)}_{channel_topic(channel)}",
            "default_entity_id": f"{platform}.{slug}",
        }

    def _state(self, device: str, channel: str, kind: Kind) -> dict[str, str]:
        """Where an entity finds its state."""
        if self._bare:
            return {"state_topic": self._topics.value(device, channel), "value_template": _BARE[kind]}
        return {"value_template": template(channel, kind)}

    def _sensor(self, device: str, channel: Channel, kind: Kind) -> dict[str, Any]:
        entity = self._entity(device, channel.name, _platform(kind))
        entity |= self._state(device, channel.name, kind)
        if kind == "number":
            entity["state_class"] = channel.state_class or _TOTALS.get(channel.device_class or "", "measurement")
            if channel.unit:
                entity["unit_of_measurement"] = channel.unit
        if channel.device_class and kind != "text":
            entity["device_class"] = channel.device_class
        return entity

    def _output(self, device: str, output: Output) -> dict[str, Any]:
        platform = "select" if output.kind == "text" and output.choices else output.kind
        entity = self._entity(device, output.name, platform)
        entity["command_topic"] = self._topics.set(device, output.name)
        if output.device_class:
            entity["device_class"] = output.device_class
        match platform:
            case "switch":
                entity |= {"payload_on": "ON", "payload_off": "OFF", **self._state(device, output.name, "bool")}
            case "number":
                entity |= {"mode": "box", **self._state(device, output.name, "number")}
                entity["step"] = 1 if output.whole else 0.001
                for key, value in (("min", output.low), ("max", output.high), ("unit_of_measurement", output.unit)):
                    if value not in (None, ""):
                        entity[key] = value
            case "select":
                entity |= {"options": list(output.choices), **self._state(device, output.name, "text")}
            case "text":
                entity |= {"max": min(output.longest, 255), **self._state(device, output.name, "text")}
            case "button":
                entity["payload_press"] = "press"
        return entity


def _platform(kind: Kind) -> str:
    return "binary_sensor" if kind == "bool" else "sensor"
