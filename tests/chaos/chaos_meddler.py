"""A relay that understands MQTT and misbehaves as a broker might, while the judge's subscription stays as it is."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Literal, Self

PUBLISH, PUBACK = 0x30, 0x40  # MQTT 3.1.1, table 2.1; the low four bits are flags

Manner = Literal["honest", "mute", "twice", "close acknowledged", "close unacknowledged"]
"""honest: as the broker; mute: it never acknowledges; twice: it acknowledges twice; close ...: it closes the connection
after each PUBLISH of a reading, with or without having acknowledged it."""


def packets(buffer: bytearray) -> Iterator[bytes]:
    """Take the whole packets from the beginning of buffer (section 2.2.3)."""
    while len(buffer) >= 2:
        length = shift = 0
        place = 1
        while True:
            if place == len(buffer):
                return
            digit = buffer[place]
            length |= (digit & 127) << shift
            shift += 7
            place += 1
            if digit < 128:
                break
        if len(buffer) < place + length:
            return
        packet = bytes(buffer[: place + length])
        del buffer[: place + length]
        yield packet


def _topic_and_mid(publish: bytes) -> tuple[bytes, bytes]:
    place = 1
    while publish[place] & 128:
        place += 1
    place += 1
    size = int.from_bytes(publish[place : place + 2], "big")
    topic = publish[place + 2 : place + 2 + size]
    return topic, publish[place + 2 + size : place + 4 + size] if publish[0] & 0x06 else b""


class _Pair:
    """One connection of the agent, and the one to the broker that belongs to it."""

    def __init__(self, meddler: Meddler, agent: socket.socket) -> None:
        self.meddler = meddler
        self.agent = agent
        self.broker = socket.create_connection(("127.0.0.1", meddler.target))
        self.closing_at: bytes | None = None  # once this packet id is acknowledged, we close
        self.closed = False
        for source, pass_on in ((agent, self._up), (self.broker, self._down)):
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._pump, args=(source, pass_on), daemon=True).start()

    def _pump(self, source: socket.socket, pass_on: Callable[[bytes], None]) -> None:
        buffer = bytearray()
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                buffer += data
                for packet in packets(buffer):
                    if not self.closed:
                        pass_on(packet)
        self.close()

    def _up(self, packet: bytes) -> None:
        if self.closing_at is not None:
            return  # what follows the PUBLISH after which we close never reaches the broker
        manner = self.meddler.manner
        if packet[0] & 0xF0 == PUBLISH and manner.startswith("close"):
            topic, mid = _topic_and_mid(packet)
            if topic.endswith(b"/telemetry"):
                self.closing_at = mid
                self.broker.sendall(packet)
                if manner == "close unacknowledged":
                    self._close_for_it()
                return
        self.broker.sendall(packet)

    def _down(self, packet: bytes) -> None:
        manner = self.meddler.manner
        if packet[0] & 0xF0 == PUBACK:
            self.meddler.acks += 1
            if manner == "mute":
                return
            self.agent.sendall(packet * (2 if manner == "twice" else 1))
            if packet[2:4] == self.closing_at:
                self._close_for_it()
            return
        self.agent.sendall(packet)

    def _close_for_it(self) -> None:
        self.meddler.closings += 1
        self.close()

    def close(self) -> None:
        self.closed = True
        self.meddler.ends.append(time.monotonic())
        for end in (self.agent, self.broker):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads it; the last bytes still go out


class Meddler:
    """Listens on a port of 127.0.0.1, and passes MQTT 3.1.1 on to the broker's in its present manner."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.manner: Manner = "honest"
        self.connections = 0
        self.closings = 0
        """Connections that it has closed after a PUBLISH."""
        self.acks = 0
        """PUBACKs that the broker has sent."""
        self.ends: list[float] = []
        """When connections ended, in seconds of CLOCK_MONOTONIC; in no order."""
        self._pairs: list[_Pair] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtt://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                agent, _ = self._listener.accept()
                self.connections += 1
                self._pairs.append(_Pair(self, agent))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for pair in self._pairs:
            pair.close()
            pair.agent.close()
            pair.broker.close()
