"""A broker that does what a test says, packet by packet, and a link to drive against it."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from agent.clock import Clock, ClockSettings
from agent.codec import JsonCodec, Topics, encode_fields
from agent.errors import LinkError
from agent.events import EventManager
from agent.model import Reading
from agent.mqtt import Link
from agent.mqtt_settings import MqttSettings
from agent.outbox import Outbox
from agent.outbox_settings import OutboxSettings
from agent.publisher import Publisher

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70
SUBSCRIBE, PINGREQ, PINGRESP, DISCONNECT = 0x80, 0xC0, 0xD0, 0xE0
PATIENCE = 10.0  # seconds; reached only by a test that fails


@dataclass
class Packet:
    """One control packet. For a PUBLISH topic, mid (0 at QoS 0), payload, qos and retain are taken apart."""

    kind: int
    flags: int
    body: bytes
    five: bool = False
    topic: str = ""
    mid: int = 0
    payload: bytes = b""

    def __post_init__(self) -> None:
        if self.kind == PUBLISH:
            size = int.from_bytes(self.body[:2], "big")
            self.topic = self.body[2 : 2 + size].decode()
            rest = self.body[2 + size :]
            if self.qos:
                self.mid, rest = int.from_bytes(rest[:2], "big"), rest[2:]
            self.payload = rest[1 + rest[0] :] if self.five else rest  # properties: less than 128 bytes
        elif self.kind not in (CONNECT, PINGREQ, DISCONNECT):
            self.mid = int.from_bytes(self.body[:2], "big")

    @property
    def qos(self) -> int:
        return self.flags >> 1 & 3

    @property
    def retain(self) -> bool:
        return bool(self.flags & 1)


class ClosedError(Exception):
    """The client has closed the connection."""


class Peer:
    """A client as the broker sees it; all of it blocks, up to PATIENCE."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.five = False
        sock.settimeout(PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            try:
                more = self.sock.recv(size - len(data))
            except ConnectionError:
                more = b""
            if not more:
                raise ClosedError
            data += more
        return data

    def packet(self) -> Packet:
        """The next one. Raises ClosedError."""
        first = self._read(1)[0]
        size = shift = 0
        while True:
            byte = self._read(1)[0]
            size |= (byte & 127) << shift
            shift += 7
            if not byte & 128:
                break
        body = self._read(size)
        if first & 0xF0 == CONNECT:
            self.five = body[6] == 5
        return Packet(first & 0xF0, first & 0x0F, body, self.five)

    def expect(self, kind: int) -> Packet:
        packet = self.packet()
        assert packet.kind == kind, f"expected 0x{kind:02X}, got {packet}"
        return packet

    def publishes(self, count: int) -> list[Packet]:
        return [self.expect(PUBLISH) for _ in range(count)]

    def send(self, kind: int, body: bytes = b"", flags: int = 0) -> None:
        self.sock.sendall(encoded(kind, body, flags))

    def accept(self, code: int = 0, properties: bytes = b"", *, present: bool = False) -> Packet:
        """Take CONNECT and answer it."""
        connect = self.expect(CONNECT)
        body = bytes((present, code)) + (bytes((len(properties),)) + properties if self.five else b"")
        self.send(CONNACK, body)
        return connect

    def ack(self, *packets: Packet, code: int | None = None) -> None:
        """PUBACK, in one segment."""
        tail = b"" if code is None else bytes((code,))
        self.sock.sendall(b"".join(encoded(PUBACK, struct.pack("!H", p.mid) + tail) for p in packets))

    def serve(self) -> None:
        """Acknowledge everything until the client goes."""
        while True:
            packet = self.packet()
            if packet.kind == PUBLISH and packet.qos == 1:
                self.ack(packet)
            elif packet.kind in (PUBLISH, PUBREL) and (packet.qos == 2 or packet.kind == PUBREL):
                self.send(PUBREC if packet.kind == PUBLISH else PUBCOMP, struct.pack("!H", packet.mid))
            elif packet.kind == PINGREQ:
                self.send(PINGRESP)
            elif packet.kind == DISCONNECT:
                return

    def quiet(self, seconds: float) -> bool:
        """Whether nothing comes for so long."""
        self.sock.settimeout(seconds)
        try:
            return not self.sock.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return True
        finally:
            self.sock.settimeout(PATIENCE)

    def until_closed(self) -> list[Packet]:
        """What else comes until the client closes."""
        packets = []
        try:
            while True:
                packets.append(self.packet())
        except ClosedError:
            return packets

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def encoded(kind: int, body: bytes = b"", flags: int = 0) -> bytes:
    size, left = b"", len(body)
    while True:
        left, low = divmod(left, 128)
        size += bytes((low | (128 if left else 0),))
        if not left:
            return bytes((kind | flags,)) + size + body


def seqs(packets: list[Packet]) -> list[int]:
    """Numbers of the readings among them."""
    return [json.loads(packet.payload)["seq"] for packet in packets if packet.topic.endswith("telemetry")]


def birth(peer: Peer, **options: object) -> Packet:
    """Accept the client, and acknowledge its ``online``."""
    connect = peer.accept(**options)  # type: ignore[arg-type]
    packet = peer.expect(PUBLISH)
    assert (packet.topic, packet.payload, packet.retain, packet.qos) == (
        "outstation/a/availability",
        b"online",
        True,
        1,
    )
    peer.ack(packet)
    return connect


def serve(peer: Peer) -> None:
    """A good broker: accepts and acknowledges."""
    peer.accept()
    peer.serve()


class ScriptedBroker:
    """Plays one script for each connection, the last one again and again; a failed script fails the test at the end."""

    def __init__(self, *scripts: Callable[[Peer], object], tls: ssl.SSLContext | None = None) -> None:
        self.connections = 0
        self._scripts = scripts
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._failures: list[BaseException] = []
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def url(self) -> str:
        return f"{'mqtts' if self._tls else 'mqtt'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ended = True
        with socket.socket() as waker:  # accept() does not notice that its socket is closed
            waker.settimeout(1)
            waker.connect_ex(("127.0.0.1", self.port))
        self._thread.join(PATIENCE)
        self._listener.close()
        if kind is None and self._failures:
            raise self._failures[0]

    def _run(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            if self._ended:
                sock.close()
                return
            script = self._scripts[min(self.connections, len(self._scripts) - 1)]
            self.connections += 1
            try:
                if self._tls is not None:
                    sock = self._tls.wrap_socket(sock, server_side=True)
                script(Peer(sock))
            except ClosedError:
                pass
            except (AssertionError, OSError) as error:
                self._failures.append(error)
            finally:
                sock.close()


@dataclass
class Rig:
    """A link with its publisher and outbox, on a real event manager that runs while ``until`` waits."""

    settings: MqttSettings
    outbox_settings: OutboxSettings = field(default_factory=lambda: OutboxSettings(durability="memory"))
    jitter: Callable[[], float] = lambda: 1.0

    def __post_init__(self) -> None:
        self.manager = EventManager(on_callback_error=self._failed)
        self.clock = Clock(ClockSettings(trust="always"))
        self.topics = Topics("a")
        self.outbox = Outbox(self.manager, self.outbox_settings, self.clock)
        self.link = Link(
            self.manager,
            self.settings,
            client_id="outstation-a",
            will=(self.topics.availability, b"offline"),
            jitter=self.jitter,
        )
        self.publisher = Publisher(
            self.manager, self.link, self.outbox, JsonCodec(), self.topics, self.settings, self.clock
        )
        self.ups = 0
        self.downs: list[LinkError | None] = []
        self.messages: list[tuple[str, bytes, bool]] = []
        self.failures: list[BaseException] = []
        self._wrap()

    def _failed(self, _event: object, error: BaseException) -> None:
        self.failures.append(error)

    def _wrap(self) -> None:
        up, down = self.link.on_up, self.link.on_down

        def on_up() -> None:
            self.ups += 1
            up()

        def on_down(error: LinkError | None) -> None:
            self.downs.append(error)
            down(error)

        self.link.on_up, self.link.on_down = on_up, on_down
        self.link.on_message = lambda message: self.messages.append(message[:3])

    def put(self, count: int, device: str = "d", **fields: Any) -> list[Reading]:
        made = [
            Reading(device, self.outbox.next_seq(device), self.clock.mono_ns(), encode_fields(fields or {"x": 1}))
            for _ in range(count)
        ]
        self.publisher.accept(made)
        return made

    def until(self, condition: Callable[[], object], timeout: float = PATIENCE) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            left = deadline - time.monotonic()
            assert left > 0, f"not within {timeout:g} s: {self.link.stats()}, {self.publisher.stats()}, {self.failures}"
            self.manager.run_once(min(left, 0.05))
        assert not self.failures, self.failures

    def run_for(self, seconds: float) -> None:
        """Let it run: for what must not happen."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.manager.run_once(left)

    @property
    def error(self) -> LinkError:
        error = self.link.stats().last_error
        assert error is not None
        return error

    def fails(self, timeout: float = PATIENCE) -> LinkError:
        """Start, and wait for the first failure."""
        self.link.start()
        self.until(lambda: self.link.stats().failures, timeout)
        return self.error

    def drain(self, timeout: float = 5.0) -> int:
        left: list[int] = []
        self.publisher.drain(timeout, left.append)
        self.until(lambda: left, timeout + 2)
        return left[0]

    def drain_link(self) -> None:
        """A clean stop, which must succeed."""
        assert self.drain() == 0
        assert not self.failures, self.failures

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        stopped: list[bool] = []
        self.link.stop(lambda: stopped.append(True), timeout=0.01)
        while not stopped:
            self.manager.run_once(0.1)
        self.manager.close()


def rig(url: str | Sequence[str], *, jitter: float = 1.0, **settings: Any) -> Rig:
    urls = (url,) if isinstance(url, str) else tuple(url)
    quick = {"retry_min": 0.05, "connect_timeout": 5.0}
    return Rig(MqttSettings.model_validate({"urls": urls, **quick, **settings}), jitter=lambda: jitter)
