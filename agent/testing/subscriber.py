"""A subscriber outside the agent: what really arrived at the broker, and when."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

T = TypeVar("T")

PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it arrived.

    at: monotonic seconds (CLOCK_MONOTONIC) of its arrival; dup: the broker sends it to this subscriber once more, as it
    knows of no acknowledgement of the first time.
    """

    topic: str
    payload: bytes
    qos: int
    retain: bool
    at: float
    dup: bool = False

    def json(self) -> Any:
        """Its payload, decoded. Raises ValueError if that is not JSON."""
        return json.loads(self.payload)


class Subscriber:
    """Collects what is published below a topic filter, from the moment in which ``start`` returns::

        with Subscriber(broker.url, "outstation/#") as subscriber:
            message = subscriber.next("outstation/+/weather/telemetry", timeout=5)
            subscriber.wait_for(lambda messages: len(messages) >= 100, timeout=30)

    It reconnects by itself when the broker comes back, and subscribes again. What is published meanwhile comes only in
    a session that the broker keeps: ``persistent=True`` and a client id of its own.
    """

    def __init__(
        self,
        url: str,
        *filters: str,
        qos: int = 1,
        ca_file: str | None = None,
        cert_file: str | None = None,
        key_file: str | None = None,
        username: str | None = None,
        password: str | None = None,
        tls: ssl.SSLContext | None = None,
        client_id: str | None = None,
        persistent: bool = False,
        on_message: Callable[[Message], object] | None = None,
        on_up: Callable[[bool], object] | None = None,
        on_down: Callable[[str], object] | None = None,
        keep: bool = True,
    ) -> None:
        """url: mqtt://, mqtts://, ws:// or wss://, may hold user and password; tls: instead of ca_file and the like.

        persistent: the broker keeps the session, and queues at QoS 1; it needs a client_id. Most keep it for ever: to
        end it, connect and close once more under that client_id without ``persistent`` (MQTT 3.1.1, section 3.1.2.4).
        on_message, on_up, on_down: called on the subscriber's own thread, one at a time, never within ``held``. on_up:
        the broker has accepted us, and (True) has kept our session; before any message of that connection. on_down: why
        it is lost. keep: False leaves ``messages`` empty, for one that runs for days.
        """
        parts = urlsplit(url)
        if parts.scheme not in PORTS or not parts.hostname:
            raise ValueError(f"{url}: write mqtt://host[:port] or mqtts://host[:port]")
        if persistent and not client_id:
            raise ValueError("a session that the broker keeps needs a client_id of its own")
        self._host = parts.hostname
        self._port = parts.port or PORTS[parts.scheme]
        self._filters = filters or ("#",)
        self._qos = qos
        self._on_message = on_message
        self._on_up = on_up
        self._on_down = on_down
        self._calling = threading.RLock()
        self._keep = keep
        self._changed = threading.Condition(threading.RLock())
        self._messages: list[Message] = []
        self._taken: dict[str, int] = {}
        self._subscriptions = 0
        self._refusal: str | None = None
        self.refusal_code: int | None = None
        """The reason code with which the broker refused the connection (MQTT 5, section 2.4)."""
        self._client = client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id or "",
            clean_session=not persistent,
            protocol=paho.MQTTv311,
            transport="websockets" if parts.scheme.startswith("ws") else "tcp",
        )
        if parts.scheme.startswith("ws"):
            client.ws_set_options(path=(parts.path or "/mqtt") + (f"?{parts.query}" if parts.query else ""))
        username = username or (unquote(parts.username) if parts.username else None)
        if username is not None:
            client.username_pw_set(username, password or (unquote(parts.password) if parts.password else None))
        if parts.scheme in ("mqtts", "wss"):
            if tls is None:
                tls = ssl.create_default_context(cafile=ca_file)
                if cert_file is not None:
                    tls.load_cert_chain(cert_file, key_file)
            client.tls_set_context(tls)
            # Else paho compares the names itself where the context was told not to.
            client.tls_insecure_set(not tls.check_hostname)
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_subscribe = self._subscribed
        client.on_message = self._message
        client.on_socket_open = _no_delay
        client.reconnect_delay_set(min_delay=1, max_delay=1)

    @property
    def messages(self) -> list[Message]:
        """All that have arrived so far."""
        with self._changed:
            return list(self._messages)

    def start(self, timeout: float = 10.0) -> Self:
        """Connect and subscribe. Raises ConnectionError, which says why, or TimeoutError."""
        self._client.connect_timeout = timeout
        try:
            self._client.connect(self._host, self._port, keepalive=30)
        except OSError as error:
            raise ConnectionError(f"{self._host}:{self._port}: {error.strerror or error}") from error
        self._client.loop_start()
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._subscriptions or self._refusal, timeout)
                if self._refusal:
                    raise ConnectionError(f"{self._host}:{self._port}: {self._refusal}")
                if not self._subscriptions:
                    raise TimeoutError(f"{self._host}:{self._port} confirmed no subscription within {timeout:g} s")
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Disconnect. Idempotent."""
        self._client.disconnect()
        self._client.loop_stop()

    @contextmanager
    def held(self) -> Iterator[None]:
        """While it lasts no callback runs: time to look at what they change. Messages wait with the broker."""
        with self._calling:
            yield

    def wait_for(self, condition: Callable[[list[Message]], T], timeout: float = 10.0) -> T:
        """Wait until condition, given all messages, is true; what it returned. Raises AssertionError after timeout.

        The list is the subscriber's own, spared a copy for each message: look, and leave it as it is.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while not (result := condition(self._messages)):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"not within {timeout:g} s; {self._tail()}")
                self._changed.wait(left)
            return result

    def wait_subscribed(self, times: int = 1, timeout: float = 10.0) -> None:
        """Wait until the broker has confirmed so many subscriptions: one for each connect. Raises AssertionError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._subscriptions >= times, timeout):
                raise AssertionError(f"subscribed {self._subscriptions} times within {timeout:g} s, not {times}")

    def wake(self) -> None:
        """Make ``wait_for`` look at its condition again, for one that hangs on something else too. From any thread."""
        with self._changed:
            self._changed.notify_all()

    def next(self, topic_filter: str = "#", timeout: float = 10.0) -> Message:
        """The next message that fits and that ``next`` with this filter has not given yet. Raises AssertionError."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                start = self._taken.get(topic_filter, 0)
                for index in range(start, len(self._messages)):
                    if paho.topic_matches_sub(topic_filter, self._messages[index].topic):
                        self._taken[topic_filter] = index + 1
                        return self._messages[index]
                self._taken[topic_filter] = len(self._messages)
                left = deadline - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"nothing for {topic_filter} within {timeout:g} s; {self._tail()}")
                self._changed.wait(left)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, timeout: float = 10.0) -> None:
        """Publish at QoS 1, and wait until the broker has it. Raises TimeoutError."""
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        info.wait_for_publish(timeout)
        if not info.is_published():
            raise TimeoutError(f"the broker did not acknowledge {topic} within {timeout:g} s")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---------------------------------------------------------------------------------------------------------------

    def _tail(self) -> str:
        last = "".join(f"\n  {m.topic} {m.payload[:200]!r}" for m in self._messages[-5:])
        return f"{len(self._messages)} messages arrived" + (f", the last of them:{last}" if last else "")

    def _connected(
        self, client: paho.Client, _userdata: object, flags: paho.ConnectFlags, reason: ReasonCode, _properties: object
    ) -> None:
        if reason.is_failure:
            self.refusal_code = reason.value
            self._refused(f"the broker refuses the connection: {reason}")
            return
        if self._on_up is not None:
            with self._calling:
                self._on_up(flags.session_present)
        # On each connection: a broker may keep a session and forget this (seen with NATS).
        client.subscribe([(topic, self._qos) for topic in self._filters])

    def _subscribed(
        self, _client: paho.Client, _userdata: object, _mid: int, reasons: list[ReasonCode], _properties: object
    ) -> None:
        if refused := [str(reason) for reason in reasons if reason.is_failure]:
            self._refused(f"the broker refuses the subscription: {', '.join(refused)}")
            return
        with self._changed:
            self._subscriptions += 1
            self._changed.notify_all()

    def _refused(self, text: str) -> None:
        with self._changed:
            self._refusal = self._refusal or text
            self._changed.notify_all()
        self._told_down(text)

    def _disconnected(
        self, _client: paho.Client, _userdata: object, _flags: object, reason: ReasonCode, _properties: object
    ) -> None:
        if not self._subscriptions and reason.is_failure:  # as TLS 1.3 does where a client's certificate is missing
            self._refused("the broker closed the connection before it answered")
        else:
            self._told_down(str(reason) if reason.is_failure else "disconnected")

    def _told_down(self, reason: str) -> None:
        if self._on_down is not None:
            with self._calling:
                self._on_down(reason)

    def _message(self, _client: paho.Client, _userdata: object, got: paho.MQTTMessage) -> None:
        try:
            topic = got.topic
        except (
            UnicodeDecodeError
        ):  # no topic at all (MQTT 3.1.1, section 4.7.3); raised from here it would end the thread
            return
        message = Message(topic, bytes(got.payload), got.qos, got.retain, time.monotonic(), got.dup)
        with self._changed:
            if self._keep:
                self._messages.append(message)
                self._changed.notify_all()
        if self._on_message is not None:
            with self._calling:
                self._on_message(message)


def _no_delay(_client: paho.Client, _userdata: object, connection: object) -> None:
    """Acknowledgements leave at once: by Nagle's algorithm each would wait up to 40 ms for the kernel's own, and so
    would the broker's next messages, of which it sends only so many unacknowledged."""
    if isinstance(connection, socket.socket):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
