"""What stays the same while a configuration runs: devices, their drivers, channels, units and outputs.

Published retained at ``outstation/<agent>/info``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import orjson

from agent.device import Device
from agent.model import Channel


def info(agent: str, versions: Mapping[str, str], devices: Mapping[str, Device], homeassistant: Any = None) -> bytes:
    """The payload. homeassistant: what ``homeassistant_announcer`` wants to know again after a restart, or None."""
    tables = {
        name: {
            "driver": device.config.driver,
            **device.place,
            "channels": [_channel(channel) for channel in device.channels],
            "outputs": [
                {key: value for key, value in asdict(output).items() if value not in (None, "", ())}
                for output in device.outputs
            ],
        }
        for name, device in devices.items()
    }
    said: dict[str, Any] = {"agent": agent, "versions": versions, "devices": tables}
    if homeassistant is not None:
        said["homeassistant"] = homeassistant
    return orjson.dumps(said)


def _channel(channel: Channel) -> dict[str, Any]:
    return {
        "name": channel.name,
        "unit": channel.unit,
        "low": channel.low,
        "high": channel.high,
        "device_class": channel.device_class,
        "state_class": channel.state_class,
    }
