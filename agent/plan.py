"""What comes, goes or changes from one configuration to another: devices, topics, Home Assistant's entities. Pure.

Each of the two is a *side*, which is JSON, so that the running agent can tell its own through its socket. A setting is
two texts there: as it may be shown, with what may be secret masked, and a digest by which a change of it is still seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import orjson
from pydantic import BaseModel
from pydantic_core import to_json

from agent.codec import Topics
from agent.config import SECTIONS, Config, Device
from agent.config_masked import masked_value
from agent.config_options import toml
from agent.errors import PluginError
from agent.homeassistant import Discovery, Kind
from agent.model import Channel
from agent.outputs import Output
from agent.registry import known_channels, known_outputs
from agent.rules_settings import published

Kinds: TypeAlias = Mapping[str, Mapping[str, Kind]]
"""Of each device's channels what they are, as far as their values have told."""

NOTHING: dict[str, Any] = {"keys": {}, "topics": [], "entities": {}, "devices": {}}
"""The side of no agent at all."""


def side(config: Config, kinds: Kinds | None = None) -> dict[str, Any]:
    """One configuration. kinds: what the running agent has seen; without them an entity is known by its name alone."""
    topics = Topics(config.agent.id, config.mqtt.base, config.mqtt.topic)
    keys = {
        f"{name}.{key}": _setting(getattr(getattr(config, name), key), key)
        for name, model in SECTIONS.items()
        for key in model.model_fields
    }
    discovery = None
    if config.homeassistant.discovery == "on":
        bare = config.mqtt.format == "values"
        discovery = Discovery(config.agent.id, topics, config.homeassistant.prefix, bare=bare)
    return {
        "keys": keys,
        "topics": [topics.availability, topics.status, topics.info] + ([discovery.topic(None)] if discovery else []),
        "entities": _entities(discovery.agent()) if discovery else {},
        "devices": {
            device.config.name: _device(device, config, topics, discovery, (kinds or {}).get(device.config.name, {}))
            for device in config.devices
        },
    }


def _device(
    device: Device, config: Config, topics: Topics, discovery: Discovery | None, kinds: Mapping[str, Kind]
) -> dict[str, Any]:
    name, driver = device.config.name, device.config.driver
    try:
        channels = published(device.config.rules, known_channels(*device))
        outputs = known_outputs(*device)
    except PluginError:  # the driver's defect is for `check` and the log to tell
        channels, outputs = (), ()
    found = [topics.device_availability(name)]
    if config.mqtt.format == "values":
        found += [topics.value(name, channel) for channel in _names(channels, outputs, kinds)]
    else:
        found.append(topics.telemetry(name))
    found += [topics.set(name, output.name) for output in outputs]
    entities: dict[str, str] = {}
    if discovery is not None:
        found.append(discovery.topic(name))
        entities = dict.fromkeys(_names(channels, outputs, kinds), "")
        if payload := discovery.device(name, driver, channels, outputs, kinds, {}):
            entities |= _entities(payload)
    return {
        "driver": driver,
        "keys": {key: _setting(getattr(device.config, key), key) for key in type(device.config).model_fields},
        "topics": found,
        "entities": entities,
    }


def _names(channels: Sequence[Channel], outputs: Sequence[Output], kinds: Mapping[str, Kind]) -> list[str]:
    """What is declared, and what the wire alone has named."""
    return list(dict.fromkeys([*(channel.name for channel in channels), *(output.name for output in outputs), *kinds]))


def _entities(payload: bytes) -> dict[str, str]:
    """``{"temperature": "sensor, °C, temperature"}``: by the name that Home Assistant shows."""
    about = ("p", "unit_of_measurement", "device_class")
    return {
        entity["name"]: ", ".join(entity[key] for key in about if key in entity)
        for entity in orjson.loads(payload)["cmps"].values()
    }


def _setting(value: Any, key: str) -> tuple[str, str]:
    """As it may be shown, and a digest of what it is."""
    whole = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    digest = hashlib.blake2b(to_json(whole, fallback=str), digest_size=16).hexdigest()
    return "none" if value is None else toml(masked_value(value, (key,))), digest


# ---- what lies between two of them


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be done to come from one side to the other.

    ``{"agent": part, "devices": {name: part}}``, and each part has ``action`` ("come", "go", "change" or "stay"),
    ``driver`` (text or null), ``keys`` (``{key: [before, after]}``), ``topics`` (``{"come": [...], "go": [...]}``) and
    ``entities`` (``{"come": {name: about}, "go": {...}, "change": {name: [before, after]}}``). Keys of the agent take
    effect with a restart alone.
    """
    before, after = old["devices"], new["devices"]
    return {
        "agent": _part(old, new),
        "devices": {name: _part(before.get(name), after.get(name)) for name in {**before, **after}},
    }


def _part(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> dict[str, Any]:
    a, b = old or NOTHING, new or NOTHING
    keys = {}
    if a["keys"] and b["keys"]:  # else all of them are new or gone: there is nothing to compare
        for key in {**a["keys"], **b["keys"]}:
            was, becomes = a["keys"].get(key, ("none", "")), b["keys"].get(key, ("none", ""))
            if was[1] != becomes[1]:
                keys[key] = [was[0], becomes[0]]
    had, has = a["entities"], b["entities"]
    return {
        "action": "come" if not a["keys"] else "go" if not b["keys"] else "change" if keys else "stay",
        "driver": (new or old or {}).get("driver"),
        "keys": keys,
        "topics": {
            "come": [topic for topic in b["topics"] if topic not in a["topics"]],
            "go": [topic for topic in a["topics"] if topic not in b["topics"]],
        },
        "entities": {
            "come": {name: about for name, about in has.items() if name not in had},
            "go": {name: about for name, about in had.items() if name not in has},
            "change": {
                name: [had[name], about]
                for name, about in has.items()
                if about and had.get(name) and had[name] != about
            },
        },
    }


def changes_something(plan: Mapping[str, Any]) -> bool:
    """Whether there is anything to be done."""
    return any(part["action"] != "stay" for part in (plan["agent"], *plan["devices"].values()))
