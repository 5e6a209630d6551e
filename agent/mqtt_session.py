"""One connection to a broker: a paho client on a wire, from CONNECT to the end.

A client serves one connection, so that nothing of an old one goes out behind our back (paho re-sends its
``_out_messages`` after a reconnect): the outbox owns that. paho runs on the loop's thread alone; its callbacks only
take note, and what follows from it is done when paho has returned, since it holds locks meanwhile.
"""

from __future__ import annotations

from typing import Any

from agent.errors import LinkError
from agent.events import EventManager, SocketEvent
from agent.mqtt_attention import Attention
from agent.mqtt_client import GARBAGE, REFUSED, Client, MQTTErrorCode
from agent.mqtt_connect import Attempt
from agent.mqtt_errors import broken, from_code, is_alert, not_mqtt, silent, unacknowledged, unanswered
from agent.mqtt_inflight import InFlight, Sent
from agent.mqtt_limit import Caution, PacketLimit, packet_size
from agent.mqtt_message import BARE, received
from agent.mqtt_owner import Owner
from agent.mqtt_paho import MQTTMessage, Properties, ReasonCode
from agent.mqtt_pulse import Pulse
from agent.mqtt_wire import Wire

_BACKLOG = 262_144  # bytes the socket has not taken, past which no more is sent: some seconds of a slow mobile link
_CONNACK = 0x20
_CONTROL = object()  # token of a message that goes ahead of one under suspicion
_PINGREQ = b"\xc0\x00"
_SET_ASIDE = ("not_authorized", "protocol", "too_large")  # refusals of a message that would come every time


class Session:
    """See the module. ``begin`` sends CONNECT; ``owner`` hears of everything else."""

    def __init__(
        self,
        manager: EventManager,
        attempt: Attempt,
        wire: Wire,
        client_id: str,
        will: tuple[str, bytes] | None,
        owner: Owner,
        limit: PacketLimit,
    ) -> None:
        settings = attempt.settings
        self.up = False
        self.max_packet = settings.max_packet
        self.max_qos = 2
        self.retains = True
        self.window = settings.inflight
        self.left: list[Sent] = []
        """What was not acknowledged when it ended."""
        self._manager = manager
        self._attempt = attempt
        self._settings = settings
        self._five = settings.version == "5"
        self._wire = wire
        self._client_id = client_id
        self._owner = owner
        self._limit = limit
        self._caution = Caution(limit)
        self._flying = InFlight(manager, settings.ack_timeout, self._readable, self._overdue)
        self._attention = Attention(manager, wire, self._flying, self._readable)
        self._written: list[Any] = []  # QoS 0: tokens that leave when the wire has nothing left to write
        self._acked: list[tuple[int, int]] = []
        self._messages: list[MQTTMessage] = []
        self._connack: tuple[Any, Properties | None] | None = None
        self._gone: tuple[bool, Any] | None = None
        self._cause: LinkError | None = None
        self._leaving = False
        self._goodbye = False
        self._ended = False
        self._socket: SocketEvent | None = None
        self._pulse: Pulse | None = None
        self._pings = False  # ourselves
        client = self._client = Client(wire, settings, client_id, will, self._on_ack)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message

    # --- from outside

    @property
    def inflight(self) -> int:
        """Messages that wait for their acknowledgement."""
        return len(self._flying) + len(self._written)

    @property
    def room(self) -> int:
        """How many messages may be published now."""
        if (
            not self.up
            or self._gone is not None
            or self._leaving
            or self._caution.holds
            or self._wire.backlog > _BACKLOG
        ):
            return 0
        return self.window - len(self._flying) - len(self._written)

    def begin(self) -> None:
        """Take the wire over and send CONNECT."""
        wire = self._wire
        wire.setblocking(False)
        self._socket = self._manager.create_socket_event(
            wire, on_readable=self._readable, on_writable=self._writable, name="mqtt.socket"
        )
        self._socket.want_writable(False)
        wire.on_close = self._socket.cancel
        wire.on_full = self._socket.want_writable
        self._client.send_connect(self._attempt.url, self._attempt.password)
        self._attempt.password = None
        self._settle()
        if wire.buffered or wire.ended:  # what came behind a WebSocket's answer
            self._manager.call_soon(self._readable)

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool, token: Any, properties: bytes = BARE) -> bool:
        """Hand a message to the wire. False: there is no room, or no connection."""
        if self.room <= 0:
            return False
        qos = min(qos, self.max_qos)
        size = packet_size(topic, len(payload) + len(properties) - 1)
        if qos and self._limit.suspect(size) and not self._alone():
            return False
        if retain:
            self._caution.note(topic, payload)
        if qos == 1 and not retain:
            mid = self._client.publish_plain(topic, payload, properties)
            if mid:
                self._flying.add(mid, token, topic, size)
            return mid > 0  # else ids have gone round to one that is still in flight; its ack_timeout is near
        if qos == 0 and not retain:
            self._client.publish_once(topic, payload, properties)
            self._written.append(token)
            return True
        noted = len(self._acked)
        info = self._client.publish(topic, payload, qos, retain and self.retains)
        if info.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
            return False  # the message id has gone round to one that is still in flight; its ack_timeout is near
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._manager.call_soon(self._settle)
            return False
        if qos == 0:
            del self._acked[noted:]  # what paho calls published is in the wire; _release knows when it has left
            self._written.append(token)
            return True
        self._flying.add(info.mid, token, topic, size)
        return True

    def _alone(self) -> bool:
        """Whether a message under suspicion may go now: with nothing in flight, after the controls."""
        self.eager()
        busy = bool(self._flying)
        if self._caution.may_go(busy):
            self._caution.gone()
            return True
        for topic, payload in self._caution.controls(busy):
            info = self._client.publish(topic, payload, min(1, self.max_qos), self.retains)
            self._flying.add(info.mid, _CONTROL, topic, packet_size(topic, len(payload)))
        return False

    def eager(self) -> None:
        """Acknowledgements are waited for: read at once whatever comes, from now on."""
        self._attention.always()

    def subscribe(self, topic_filter: str, qos: int) -> None:
        self.eager()  # somebody waits for what comes
        self._client.subscribe(topic_filter, min(qos, self.max_qos))
        self._settle()

    def cork(self) -> None:
        """Hold back what is published until ``uncork``: one system call for all of it."""
        self._wire.cork()

    def uncork(self) -> None:
        self._write()
        if self.up and self._gone is None:
            self._attention.rest(self.window)

    def _write(self) -> None:
        if self._ended:
            return
        try:
            self._wire.uncork()
        except OSError:
            self._process()  # acknowledgements, or the broker's reason, may have come before the end
            return
        self._release()

    def leave(self) -> None:
        """Send DISCONNECT behind all that is written, and end once the broker has closed: ``session_ended(None)``."""
        if self._ended or self._leaving:
            return
        self._leaving = True
        self.eager()
        self._write()
        if not self._ended and not self._wire.backlog:
            self._disconnect()

    def end(self, error: LinkError | None) -> None:
        """Close at once. Without a DISCONNECT before it, the broker publishes the Will."""
        self._end(error)

    # --- paho's callbacks: it holds locks meanwhile, so they only take notes

    def _on_connect(self, _c: Any, _u: Any, _flags: Any, code: ReasonCode, properties: Properties | None) -> None:
        self._connack = (code, properties)

    def _on_disconnect(self, _c: Any, _u: Any, flags: Any, code: ReasonCode, _p: Any) -> None:
        if self._gone is None:  # loss by keepalive is told twice
            self._gone = (flags.is_disconnect_packet_from_server, code)

    def _on_ack(self, mid: int, code: int) -> None:
        self._acked.append((mid, code))

    def _on_message(self, _c: Any, _u: Any, message: MQTTMessage) -> None:
        self._messages.append(message)

    # --- events

    def _readable(self) -> None:
        wire = self._wire
        if self._ended:
            return
        if self._goodbye:
            wire.fill()
            if wire.ended:
                self._end(None)
            return
        wire.cork()
        wire.fill()
        self._process()
        self._write()

    def _process(self) -> None:
        """Have paho read what came, and act on it."""
        wire, client = self._wire, self._client
        if not self.up and wire.first and wire.first[0] != _CONNACK:
            # Anything else before CONNACK is no broker. To paho an "H" is a PUBACK of 84 bytes, whose rest it awaits.
            self._end(unanswered(wire.first, self._attempt.url, self._settings))
            return
        try:
            if self.up:
                client.read_pubacks()
            # One call handles as many packets as messages are in flight, and at least one.
            while (wire.buffered or wire.ended) and self._gone is None and not client.loop_read():
                pass
        except GARBAGE as error:
            self._cause = not_mqtt(repr(error), self._attempt.url)
            self._gone = self._gone or (False, None)
        self._settle()

    def _writable(self) -> None:
        try:
            self._wire.flush()
        except OSError:
            self._process()
            return
        self._release()
        if self._leaving:
            if not self._wire.backlog and not self._goodbye:
                self._disconnect()
        elif self.up and not self._ended:
            self._owner.session_acked([])  # there may be room again

    def _release(self) -> None:
        """QoS 0: what was written is done with."""
        if self._written and not self._wire.backlog:
            tokens, self._written = self._written, []
            self._owner.session_acked(tokens)

    def _ping(self, due: bool) -> None:
        """Have paho ping when it thinks fit: never, where the broker asks for no keepalive; and too late with 2.1.0,
        where the broker's is shorter than ours."""
        if due and self._pings:
            self._wire.cork()
            self._wire.send(_PINGREQ)
            self._write()
        self._client.loop_misc()
        self._settle()

    def _silent(self) -> None:
        self._end(silent(self._attempt.url))

    def _overdue(self, topic: str) -> None:
        self._end(unacknowledged(topic, self._attempt.url, self._settings.ack_timeout))

    # --- what follows

    def _settle(self) -> None:
        """Act on what paho's callbacks have noted, in the order in which it happened."""
        if self._ended:
            return
        if self._connack is not None and not self.up:
            code, properties = self._connack
            if code.is_failure:
                self._cause = self._from(code.value, str(code))
            else:
                self._open(properties)
        if self._acked:
            self._settle_acks()
        if self._messages:
            messages, self._messages = self._messages, []
            for message in messages:
                try:
                    told = received(message)
                except UnicodeDecodeError:
                    continue  # a topic that is not UTF-8 cannot be one of ours
                self._owner.session_message(told)
        if self._gone is not None and not self._ended and not self._goodbye:
            self._end(self._why())

    def _settle_acks(self) -> None:
        acked, self._acked = self._acked, []
        flying = self._flying
        tokens = []
        refused = []
        for mid, code in acked:
            entry = flying.pop(mid)
            if entry is None or (entry.token is _CONTROL and code >= REFUSED):
                continue
            if code >= REFUSED:
                refused.append((entry, code))
                continue
            self._limit.acknowledged(entry.size)
            if entry.token is not _CONTROL:
                tokens.append(entry.token)
        if (not flying and self._caution.settled()) or tokens:
            self._owner.session_acked(tokens)
        for entry, code in refused:
            if self._ended:
                return
            error = self._from(code, f"0x{code:02X}")
            if error.reason == "too_large":
                self._limit.refused(entry.size, self._manager.now())
                self.max_packet = min(self.max_packet, entry.size - 1)
            if error.reason in _SET_ASIDE:
                self._owner.session_refused(entry.token, entry.topic, error)
            else:
                # It may be taken later (quota exceeded): the outbox keeps it, and the link backs off.
                self._end(error)

    def _open(self, properties: Properties | None) -> None:
        keepalive: float = self._client.keepalive
        if self._five and properties is not None:
            self.max_packet = min(self.max_packet, getattr(properties, "MaximumPacketSize", self.max_packet))
            self.window = min(self.window, getattr(properties, "ReceiveMaximum", 65_535))
            self.max_qos = getattr(properties, "MaximumQoS", 2)
            self.retains = bool(getattr(properties, "RetainAvailable", 1))
            keepalive = getattr(properties, "ServerKeepAlive", keepalive)
        # Where it asks for none we want to know all the same.
        keepalive = keepalive or self._settings.keepalive
        self._pings = keepalive != self._client.keepalive
        self._pulse = Pulse(self._manager, keepalive, self._wire, self._readable, self._ping, self._silent)
        self._limit.connected()
        self.max_packet = min(self.max_packet, self._limit.largest(self._manager.now()) or self.max_packet)
        self.up = True
        self._owner.session_up()

    def _disconnect(self) -> None:
        # The broker must close on DISCONNECT (MQTT 3.1.1, section 3.14.4); until then it may not have read all.
        self._goodbye = True
        self._wire.linger()
        self._client.disconnect()
        if self._wire.ended:
            self._end(None)

    def _from(self, code: int, name: str) -> LinkError:
        return from_code(code, name, self._attempt.url, self._settings, self._client_id)

    def _why(self) -> LinkError:
        """Why the connection has ended."""
        url, wire = self._attempt.url, self._wire
        if self._cause is not None:
            return self._cause
        # With TLS 1.3 a broker that wants a certificate says so only after the handshake.
        if self._gone is not None and self._gone[0] and not is_alert(wire.error):
            return self._from(self._gone[1].value, str(self._gone[1]))
        if not self.up and not is_alert(wire.error):
            return unanswered(wire.first, url, self._settings)
        return broken(wire.error, wire.ended, url, self._settings.connect_timeout)

    def _end(self, error: LinkError | None) -> None:
        if self._ended:
            return
        self._ended = True
        self.up = False
        for event in (self._socket, self._pulse, self._attention):
            if event is not None:
                event.cancel()
        self.left = self._flying.cancel()
        self._wire.end(abort=error is not None)
        self._owner.session_ended(error)
