"""paho-mqtt on a connection that stands already."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from agent.mqtt_message import BARE
from agent.mqtt_paho import (
    CallbackAPIVersion,
    MQTTErrorCode,
    MQTTException,
    MQTTProtocolVersion,
    PacketTypes,
    Properties,
    PropertiesException,
    ReasonCode,
    paho,
)
from agent.mqtt_settings import BrokerUrl, MqttSettings
from agent.mqtt_wire import Wire

__all__ = ["GARBAGE", "REFUSED", "Client", "MQTTErrorCode"]

GARBAGE = (MQTTException, PropertiesException, LookupError, ValueError, TypeError, AttributeError, struct.error)
"""What paho may raise on bytes that no broker sends: 2.2.0 makes return codes of most of it, 2.1.0 does not."""

REFUSED = 0x80
"""Reason codes from here on say no (MQTT 5, section 2.4)."""

_WORDS = struct.Struct("!HH")
_PUBACK = 0x4002  # its first two bytes where it is four long, which is all of it but for a reason (3.1.1, section 3.4)
_PUBLISH, _QOS_1 = 0x30, 0x02  # not retained, not a duplicate
_LAST_ID = 65_535
_HEADS = 10_000  # topics kept encoded: more than anybody's devices, and a bound where others choose where answers go

_LARGEST_IN = 262_144  # what we let an MQTT 5 broker send us: commands for outputs are far smaller


class Client(paho.Client):
    """A paho client whose socket is handed to it, so that nothing it does can block.

    Five methods of paho's own are overridden, as there is no public way (docs/decisions/011; tests notice if they go):
    ``_create_socket`` to give it the socket, ``_sock_recv`` and ``_sock_send`` as paho's ask ``ssl`` for its errors,
    ``_handle_pubackcomp`` to spare each reading a seventh of what it costs and to take any reason code,
    ``_handle_pubrec`` because paho goes on with a message that was refused.

    What a reading needs and nothing else, a PUBLISH at QoS 0 or 1 and its PUBACK, passes paho by (``publish_plain``,
    ``publish_once``, ``read_pubacks``): half of what a reading costs the agent was paho's bookkeeping for it. Message
    ids and the table of what is in flight are paho's own, so that it knows of both.

    on_ack: message id and reason code of a PUBACK or PUBCOMP, or of a PUBREC that refuses; 0 where there is none.
    """

    def __init__(
        self,
        wire: Wire,
        settings: MqttSettings,
        client_id: str,
        will: tuple[str, bytes] | None,
        on_ack: Callable[[int, int], object],
    ) -> None:
        five = self._five = settings.version == "5"
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if five else True,
            protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,  # else a refusal makes loop_read() reconnect inline
        )
        self._wire = wire
        self._on_ack = on_ack
        self._plain = paho.MQTTMessage()
        """Stands for each message of ours in paho's table."""
        self._heads: dict[str, bytes] = {}
        self.on_publish = self._acked
        self._settings = settings
        # No limit, no queue: the window is ours. With a limit each PUBACK walks through all that is in flight.
        self.max_inflight_messages = 0
        if will is not None:
            self.will_set(will[0], will[1], qos=1, retain=True)

    def publish_plain(self, topic: str, payload: bytes, properties: bytes = BARE) -> int:
        """Send a message at QoS 1, not retained (MQTT 3.1.1 and 5, section 3.3). Its id; 0: that is still in flight.

        topic: one of ours, or checked; it is encoded once. properties: as on the wire; unused under 3.1.1.
        """
        mid = self._last_mid = self._last_mid + 1 if self._last_mid < _LAST_ID else 1
        if mid in self._out_messages:
            return 0
        self._out_messages[mid] = self._plain
        tail = b"%c%c" % (mid >> 8, mid & 255)
        if self._five:
            tail += properties
        self._publish(_PUBLISH | _QOS_1, topic, tail, payload)
        return mid

    def publish_once(self, topic: str, payload: bytes, properties: bytes = BARE) -> None:
        """The same at QoS 0."""
        self._publish(_PUBLISH, topic, properties if self._five else b"", payload)

    def _publish(self, first: int, topic: str, tail: bytes, payload: bytes) -> None:
        head = self._heads.get(topic)
        if head is None:
            if len(self._heads) >= _HEADS:
                self._heads.clear()
            name = topic.encode()
            head = self._heads[topic] = len(name).to_bytes(2) + name
        start = bytearray((first,))
        left = len(head) + len(tail) + len(payload)
        while left > 127:
            start.append(left & 127 | 128)
            left >>= 7
        start.append(left)
        self._wire.send(b"".join((start, head, tail, payload)))

    def read_pubacks(self) -> None:
        """Take the plain PUBACKs at the front of what came; whatever else there is stays for ``loop_read``."""
        if self._in_packet["command"]:
            return  # paho has read a part of a packet
        data = self._wire.unread()
        size = 0
        for start, mid in _WORDS.iter_unpack(data[: len(data) & ~3]):
            if start != _PUBACK:
                break
            size += 4
            self._done(mid, 0)
        self._wire.skip(size)

    def _create_socket(self) -> Any:
        return self._wire

    def _sock_recv(self, size: int) -> bytes:
        if self._sock is None:
            raise ConnectionError("closed")
        return self._wire.recv(size)

    def _sock_send(self, data: bytes | bytearray) -> int:
        if self._sock is None:
            raise ConnectionError("closed")
        return self._wire.send(data)

    def _handle_pubackcomp(self, cmd: Any) -> MQTTErrorCode:
        """As paho's, but without the Properties and the ReasonCode that it makes of an answer that has neither, and of
        codes that the standard does not list there: Mosquitto 2.0 refuses by PUBACK what is "too large" (0x95)."""
        packet = self._in_packet["packet"]
        if len(packet) == 2 or (self._five and len(packet) > 2):
            return self._done_with(packet)
        return super()._handle_pubackcomp(cmd)

    def _handle_pubrec(self) -> MQTTErrorCode:
        packet = self._in_packet["packet"]
        if self._five and len(packet) > 2 and packet[2] >= REFUSED:
            return self._done_with(packet)  # and no PUBREL follows (MQTT 5, section 4.3.3)
        return super()._handle_pubrec()

    def _done_with(self, packet: bytes | bytearray) -> MQTTErrorCode:
        self._done(packet[0] << 8 | packet[1], packet[2] if len(packet) > 2 else 0)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _done(self, mid: int, code: int) -> None:
        message = self._out_messages.pop(mid, None)
        if message is not None:
            if message is not self._plain:
                self._inflight_messages -= 1
            self._on_ack(mid, code)

    def _acked(self, _client: Any, _userdata: Any, mid: int, code: ReasonCode, _properties: Any) -> None:
        self._on_ack(mid, code.value)

    def send_connect(self, url: BrokerUrl, password: bytes | None) -> None:
        """Send CONNECT for a clean session; the password is not kept."""
        self.username_pw_set(self._settings.username, password)  # type: ignore[arg-type]  # paho takes bytes as they are
        options: dict[str, Any] = {}
        if self._settings.version == "5":
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.MaximumPacketSize = _LARGEST_IN
            options = {"clean_start": True, "properties": properties}
        self.connect_async(url.host, url.port, keepalive=int(self._settings.keepalive), **options)
        self.reconnect()
        self.username_pw_set(None)
