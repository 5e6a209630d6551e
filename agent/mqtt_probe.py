"""Whether a broker would take us, asked on a connection of its own. Blocks: it runs on a worker, without paho."""

from __future__ import annotations

import struct
import time

from agent.errors import LinkError
from agent.mqtt_connect import Attempt, open_wire
from agent.mqtt_errors import broken, from_code, from_connack, too_late, unanswered
from agent.mqtt_settings import MqttSettings
from agent.mqtt_wire import Wire

_CONNACK = 0x20
_DISCONNECT = b"\xe0\x00"


def probe(attempt: Attempt, client_id: str) -> None:
    """Connect, send CONNECT, await CONNACK, leave: within ``connect_timeout`` for each half. Raises LinkError.

    client_id: not that of the link, which a cluster would throw out for it. There is no Will, so that a probe that is
    cut off tells nobody anything.
    """
    wire = open_wire(attempt)
    try:
        code = _ask(wire, attempt, connect(attempt.settings, client_id, attempt.password))
        if code == 0:
            wire.send(_DISCONNECT)
    except OSError as error:  # it is lost; what it said before tells why
        if isinstance(error, LinkError):
            raise
        raise broken(error, True, attempt.url, attempt.settings.connect_timeout) from None
    finally:
        attempt.password = None
        wire.end()
    if code != 0:
        if attempt.settings.version != "5":
            code = from_connack(code)
        raise from_code(code, "CONNACK", attempt.url, attempt.settings, client_id)


def _ask(wire: Wire, attempt: Attempt, request: bytes) -> int:
    """The code of the CONNACK that answers request."""
    timeout = attempt.settings.connect_timeout
    deadline = time.monotonic() + timeout
    wire.settimeout(timeout)
    wire.send(request)
    answer = b""
    while True:
        if wire.buffered:
            answer += wire.recv(wire.buffered)
        if answer and answer[0] != _CONNACK:
            raise unanswered(wire.first, attempt.url, attempt.settings)
        # Flags and code follow a length of one to four bytes (MQTT 3.1.1, section 2.2.3; MQTT 5, section 3.2).
        at = next((at for at, byte in enumerate(answer[1:5], 2) if not byte & 0x80), None)
        if at is not None and len(answer) > at + 1:
            return answer[at + 1]
        left = deadline - time.monotonic()
        if left <= 0 or isinstance(wire.error, TimeoutError):
            raise too_late(attempt.stage, attempt.url, timeout)
        if wire.error is not None:
            raise wire.error
        if wire.ended or len(answer) > 5:
            raise unanswered(wire.first, attempt.url, attempt.settings)
        wire.settimeout(left)
        wire.fill()


def connect(settings: MqttSettings, client_id: str, password: bytes | None) -> bytes:
    """A CONNECT packet (section 3.1 of both versions) for a clean session without a Will."""
    five = settings.version == "5"
    flags, payload = 0x02, [client_id.encode()]
    if settings.username is not None:
        flags |= 0x80
        payload.append(settings.username.encode())
        if password is not None:
            flags |= 0x40
            payload.append(password)
    head = b"\x00\x04MQTT" + struct.pack("!BBH", 5 if five else 4, flags, int(settings.keepalive))
    body = head + (b"\x00" if five else b"") + b"".join(struct.pack("!H", len(part)) + part for part in payload)
    length, left = b"", len(body)
    while True:
        left, low = divmod(left, 128)
        length += bytes((low | (0x80 if left else 0),))
        if not left:
            return b"\x10" + length + body
