"""A subscriber outside the agent: what really arrived at the broker, and when."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

T = TypeVar("T")

PORTS = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it arrived. ``at``: monotonic seconds (CLOCK_MONOTONIC) of its arrival."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    at: float

    def json(self) -> Any:
        """Its payload, decoded. Raises ValueError if that is not JSON."""
        return json.loads(self.payload)


class Subscriber:
    """Collects what is published below a topic filter, from the moment in which ``start`` returns::

        with Subscriber(broker.url, "outstation/#") as subscriber:
            message = subscriber.next("outstation/+/weather/telemetry", timeout=5)
            subscriber.wait_for(lambda messages: len(messages) >= 100, timeout=30)

    It reconnects by itself when the broker comes back, and subscribes again.
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
        on_message: Callable[[Message], object] | None = None,
        keep: bool = True,
    ) -> None:
        """url: mqtt:// or mqtts://, may hold user and password; on_message: called on the subscriber's own thread;
        keep: False leaves ``messages`` empty, for one that runs for days.
        """
        parts = urlsplit(url)
        if parts.scheme not in PORTS or not parts.hostname:
            raise ValueError(f"{url}: write mqtt://host[:port] or mqtts://host[:port]")
        self._host = parts.hostname
        self._port = parts.port or PORTS[parts.scheme]
        self._filters = filters or ("#",)
        self._qos = qos
        self._on_message = on_message
        self._keep = keep
        self._changed = threading.Condition(threading.RLock())
        self._messages: list[Message] = []
        self._taken: dict[str, int] = {}
        self._subscriptions = 0
        self._refusal: str | None = None
        self._client = client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
        username = username or (unquote(parts.username) if parts.username else None)
        if username is not None:
            client.username_pw_set(username, password or (unquote(parts.password) if parts.password else None))
        if parts.scheme == "mqtts":
            context = ssl.create_default_context(cafile=ca_file)
            if cert_file is not None:
                context.load_cert_chain(cert_file, key_file)
            client.tls_set_context(context)
        client.on_connect = self._connected
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
        self, client: paho.Client, _userdata: object, _flags: object, reason: ReasonCode, _properties: object
    ) -> None:
        if reason.is_failure:
            with self._changed:
                self._refusal = f"the broker refuses the connection: {reason}"
                self._changed.notify_all()
        else:
            client.subscribe([(topic, self._qos) for topic in self._filters])

    def _subscribed(
        self, _client: paho.Client, _userdata: object, _mid: int, reasons: list[ReasonCode], _properties: object
    ) -> None:
        with self._changed:
            if refused := [str(reason) for reason in reasons if reason.is_failure]:
                self._refusal = f"the broker refuses the subscription: {', '.join(refused)}"
            else:
                self._subscriptions += 1
            self._changed.notify_all()

    def _message(self, _client: paho.Client, _userdata: object, got: paho.MQTTMessage) -> None:
        message = Message(got.topic, bytes(got.payload), got.qos, got.retain, time.monotonic())
        with self._changed:
            if self._keep:
                self._messages.append(message)
                self._changed.notify_all()
        if self._on_message is not None:
            self._on_message(message)


def _no_delay(_client: paho.Client, _userdata: object, connection: object) -> None:
    """Acknowledgements leave at once: by Nagle's algorithm each would wait up to 40 ms for the kernel's own, and so
    would the broker's next messages, of which it sends only so many unacknowledged."""
    if isinstance(connection, socket.socket):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
