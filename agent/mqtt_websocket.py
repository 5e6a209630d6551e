"""MQTT in a WebSocket (RFC 6455; MQTT 3.1.1, section 6), without I/O: bytes in, bytes out.

Our own, as paho's masks byte by byte in Python, and says "handshake error" where the answer was, say, 404.
"""

from __future__ import annotations

import base64
import os
import re

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
_BINARY, _CLOSE, _PING, _PONG = 0x2, 0x8, 0x9, 0xA
LONGEST_ANSWER = 16_384
"""Bytes of HTTP header that are read before giving up."""


def request(address: str, path: str, key: bytes) -> bytes:
    """The HTTP request that opens a WebSocket (RFC 6455, section 4.1). key: 16 random bytes."""
    return (
        f"GET {path} HTTP/1.1\r\n"
        f"Host: {address}\r\n"
        "Upgrade: websocket\r\n"
        "Connection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {base64.b64encode(key).decode('ascii')}\r\n"
        "Sec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Protocol: mqtt\r\n"
        "\r\n"
    ).encode()


def check_answer(head: bytes, key: bytes) -> None:
    """Raises ValueError, with what came instead, unless head (up to the empty line) accepts the WebSocket."""
    lines = head.decode("latin-1").split("\r\n")
    if not lines[0].startswith("HTTP/1."):
        raise ValueError(f"answered {lines[0][:40]!r}, which is not HTTP")
    status = lines[0].split(" ", 1)[-1].strip()
    if not status.startswith("101"):
        raise ValueError(f"answered HTTP {status[:60]}")
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    import hashlib  # OpenSSL: 4 MB that only a WebSocket's handshake needs

    accept = base64.b64encode(hashlib.sha1(base64.b64encode(key) + _GUID, usedforsecurity=False).digest())
    if headers.get("sec-websocket-accept") != accept.decode("ascii"):
        raise ValueError(
            "answered with a wrong Sec-WebSocket-Accept: something between us and the broker is no WebSocket"
        )
    if not re.fullmatch("mqtt.*", headers.get("sec-websocket-protocol", ""), re.IGNORECASE):
        raise ValueError("does not speak the WebSocket protocol mqtt")


def mask(data: bytes | bytearray, key: bytes) -> bytes:
    """data XOR the key, over and over (RFC 6455, section 5.3); as one number: far faster than by byte."""
    size = len(data)
    pad = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(pad, "little")).to_bytes(size, "little")


def frame(data: bytes | bytearray, opcode: int = _BINARY) -> bytes:
    """A final, masked frame: as a client must send it."""
    size = len(data)
    if size < 126:
        head = bytes((0x80 | opcode, 0x80 | size))
    elif size < 65_536:
        head = bytes((0x80 | opcode, 0xFE)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 0xFF)) + size.to_bytes(8, "big")
    key = os.urandom(4)
    return head + key + mask(data, key)


class WebSocketStream:
    """The bytes that a broker's frames carry. Frame borders mean nothing to MQTT: payload is handed on as it comes."""

    def __init__(self) -> None:
        self.reply = b""
        """Control frames that are due to be sent; whoever sends them empties it."""
        self.closed = False
        self._head = b""  # an unfinished header or control frame: 14 or 127 bytes at most
        self._left = 0  # payload of the present frame that is still to come

    frame = staticmethod(frame)

    def feed(self, data: bytes) -> bytes:
        """What data carries. Raises ConnectionAbortedError on what a server must not send."""
        if self._left >= len(data) and not self._head:
            self._left -= len(data)
            return data
        out = bytearray()
        data = self._head + data
        self._head = b""
        at = 0
        while at < len(data) and not self.closed:
            if self._left:
                chunk = data[at : at + self._left]
                self._left -= len(chunk)
                at += len(chunk)
                out += chunk
                continue
            header = self._header(data, at)
            if header is None:
                self._head = data[at:]
                break
            opcode, start, size = header
            if opcode <= _BINARY:
                self._left = size
                at = start
            elif start + size > len(data):
                self._head = data[at:]
                break
            else:
                self._control(opcode, data[start : start + size])
                at = start + size
        return bytes(out)

    @staticmethod
    def _header(data: bytes, at: int) -> tuple[int, int, int] | None:
        """(opcode, where the payload starts, its size), or None if the header is not complete."""
        if len(data) - at < 2:
            return None
        opcode, size = data[at] & 0x0F, data[at + 1]
        if data[at] & 0x70 or size & 0x80 or opcode not in (0, _BINARY, _CLOSE, _PING, _PONG):
            # RFC 6455, sections 5.1 and 5.2; MQTT 3.1.1, MQTT-6.0.0-1: text frames are an error.
            raise ConnectionAbortedError(f"a WebSocket frame that is not MQTT's ({data[at : at + 2].hex()})")
        start = at + 2
        if size >= 126:
            if opcode >= _CLOSE:
                raise ConnectionAbortedError("a WebSocket control frame of more than 125 bytes")
            width = 2 if size == 126 else 8
            if len(data) < start + width:
                return None
            size = int.from_bytes(data[start : start + width], "big")
            start += width
        return opcode, start, size

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == _PING:
            self.reply += frame(payload, _PONG)
        elif opcode == _CLOSE:
            self.reply += frame(payload[:2], _CLOSE)
            self.closed = True
