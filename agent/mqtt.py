"""The link to the broker: paho-mqtt, driven by the event manager."""

from __future__ import annotations

from agent.mqtt_settings import MqttSettings

__all__ = ["MqttSettings"]
