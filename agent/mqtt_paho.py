"""paho-mqtt, without what it imports for uses that are not ours.

paho opens TLS, WebSockets and proxies by itself where it is let; here it gets a connection that stands (decision 011),
and ``ssl``, ``hashlib`` and ``urllib.request`` (with http.client) at its top are 9 MB that an agent with a plain
connection never touches (decision 038).
"""

from __future__ import annotations

from agent.lazily import lazily

with lazily("ssl", "hashlib", "urllib.request"):
    from paho.mqtt import MQTTException
    from paho.mqtt import client as paho
    from paho.mqtt.client import MQTTMessage
    from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import MQTTException as PropertiesException  # type: ignore[attr-defined]  # 2.1.0: its own
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

__all__ = [
    "CallbackAPIVersion",
    "MQTTErrorCode",
    "MQTTException",
    "MQTTMessage",
    "MQTTProtocolVersion",
    "PacketTypes",
    "Properties",
    "PropertiesException",
    "ReasonCode",
    "paho",
]
