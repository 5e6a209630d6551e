"""What went wrong with the link, in one line for a person: a ``LinkError`` for each way in which it can fail."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, TypeGuard

from agent.errors import LinkError
from agent.mqtt_settings import BrokerUrl, MqttSettings

if TYPE_CHECKING:
    import ssl

# OpenSSL's X509_V_ERR_* (x509_vfy.h): verify_code of an SSLCertVerificationError.
_NOT_YET, _EXPIRED, _SELF_SIGNED, _SELF_SIGNED_CHAIN, _HOST, _ADDRESS = 9, 10, 18, 19, 62, 64
_UNKNOWN_CA = (2, _SELF_SIGNED, _SELF_SIGNED_CHAIN, 20, 21)

_UNREACHABLE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EADDRNOTAVAIL}

# Reason codes of CONNACK and DISCONNECT (MQTT 5, section 2.4; paho gives those of 3.1.1 in the same numbers).
_CODES: dict[int, tuple[str, str, str]] = {
    0x00: ("lost", "closed the connection", "it will be tried again"),
    0x81: ("protocol", "malformed packet", "tell the developers"),
    0x82: ("protocol", "protocol error", "tell the developers"),
    0x84: ("protocol", "does not speak MQTT {version}", 'set mqtt.version = "{other}"'),
    0x85: ("client_id", "does not accept the client id {client_id!r}", "set mqtt.client_id to one that it allows"),
    0x86: ("credentials", "refuses the user name or password", "check mqtt.username and the password"),
    0x87: (
        "not_authorized",
        "does not authorise {who}",
        "check mqtt.username, the password and the broker's access list",
    ),
    0x88: ("refused", "is not available", "look at the broker"),
    0x89: ("refused", "is too busy", "look at the broker"),
    0x8A: ("not_authorized", "has banned this client", "ask whoever runs the broker"),
    0x8B: ("lost", "is shutting down", "it will be tried again"),
    0x8C: ("credentials", "wants another way of authentication", "the agent knows user name, password and certificate"),
    0x8D: ("lost", "saw nothing of us for too long", "the network may be bad; see mqtt.keepalive"),
    0x8E: (
        "taken_over",
        "gave this session to another client with the id {client_id!r}",
        "give each agent an agent.id, or mqtt.client_id, of its own",
    ),
    0x90: ("not_authorized", "does not accept the topic", "check mqtt.base and the broker's rules"),
    0x93: ("protocol", "got more at once than it allows", "lower mqtt.inflight"),
    0x95: (
        "too_large",
        "got a larger packet than it allows",
        "raise its limit, or lower mqtt.batch or mqtt.max_packet",
    ),
    0x96: ("refused", "gets messages too fast", "raise mqtt.batch or the devices' intervals"),
    0x97: ("quota", "says that a quota is exceeded", "ask whoever runs the broker; it will be tried again"),
    0x98: ("lost", "was told to disconnect us", "ask whoever runs the broker"),
    0x99: ("protocol", "does not accept the payload's form", "look at the broker's rules for this topic"),
    0x9A: ("protocol", "takes no retained messages", "choose a broker that does: state topics and the Will need them"),
    0x9B: ("protocol", "does not take this QoS", "lower mqtt.qos"),
    0x9C: ("refused", "wants us to use another server", "change mqtt.urls"),
    0x9D: ("refused", "has moved", "change mqtt.urls"),
    0x9F: ("refused", "gets too many connections", "it will be tried again"),
}


def from_code(code: int, name: str, url: BrokerUrl, settings: MqttSettings, client_id: str) -> LinkError:
    """What a reason code of CONNACK, DISCONNECT or PUBACK means. name: paho's word for it, for those not listed."""
    reason, message, remedy = _CODES.get(code, ("refused", f"says {name!r} (0x{code:02X})", "look at the broker's log"))
    words = {
        "version": settings.version,
        "other": "3.1.1" if settings.version == "5" else "5",
        "client_id": client_id,
        "who": f"the user {settings.username!r}" if settings.username else "a client without user name",
    }
    return LinkError(reason, f"{url.address} {message.format(**words)}", remedy.format(**words))


def from_connack(code: int) -> int:
    """A return code of 3.1.1's CONNACK (section 3.2.2.3) as the reason code of MQTT 5 that means the same."""
    return {1: 0x84, 2: 0x85, 3: 0x88, 4: 0x86, 5: 0x87}.get(code, 0x84)


def too_late(stage: str, url: BrokerUrl, timeout: float) -> LinkError:
    """The attempt was given up; stage: what it waited for."""
    if stage == "name":
        return LinkError(
            "dns",
            f"no name server answers for {url.host} within {timeout:g} s",
            "check the network and /etc/resolv.conf",
        )
    if stage == "tcp":
        return from_connecting(TimeoutError(), url, timeout)
    if stage == "tls":
        return from_tls(TimeoutError(), url, timeout)
    what = "as a WebSocket" if stage == "websocket" else "in MQTT"
    return LinkError(
        "timeout", f"{url.address} does not answer {what} within {timeout:g} s", "check the port in mqtt.urls"
    )


def from_name(error: socket.gaierror, url: BrokerUrl) -> LinkError:
    """A host name that was not resolved (getaddrinfo(3))."""
    if error.errno in (socket.EAI_AGAIN, socket.EAI_FAIL):
        return LinkError("dns", f"no name server answers for {url.host}", "check the network and /etc/resolv.conf")
    return LinkError("dns", f"unknown host {url.host}", "check the name in mqtt.urls, and /etc/resolv.conf")


def from_connecting(error: OSError, url: BrokerUrl, timeout: float) -> LinkError:
    """TCP did not come about."""
    if isinstance(error, TimeoutError) or error.errno == errno.ETIMEDOUT:
        return LinkError(
            "timeout", f"no answer from {url.address} within {timeout:g} s", "check address, network and firewall"
        )
    if error.errno == errno.ECONNREFUSED:
        return LinkError(
            "refused", f"{url.address} refuses the connection", "is the broker running, and listening on this port?"
        )
    if error.errno in _UNREACHABLE:
        return LinkError("unreachable", f"{url.address} is unreachable ({error.strerror})", "check network and route")
    return LinkError("unreachable", f"{url.address} cannot be connected to: {error}", "check mqtt.urls and the network")


def from_tls(error: OSError, url: BrokerUrl, timeout: float) -> LinkError:
    """The TLS handshake failed, or (TLS 1.3) the broker refused our certificate just after it."""
    import ssl  # here: an error of TLS comes from where it is loaded

    host, address = url.host, url.address
    if isinstance(error, ssl.SSLCertVerificationError):
        code = error.verify_code
        if code == _EXPIRED:
            return LinkError(
                "certificate", f"the certificate of {address} has expired", "renew it; is this board's clock right?"
            )
        if code == _NOT_YET:
            return LinkError(
                "certificate", f"the certificate of {address} is not valid yet", "is this board's clock right?"
            )
        if code in _UNKNOWN_CA:
            return LinkError(
                "certificate",
                f"the certificate of {address} is signed by an unknown authority",
                "set mqtt.ca_file to its CA's certificate",
            )
        if code in (_HOST, _ADDRESS):
            return LinkError(
                "certificate",
                f"the certificate of {address} is not for {host}",
                "use the name that stands in the certificate in mqtt.urls",
            )
        return LinkError(
            "certificate", f"the certificate of {address} is not valid: {error.verify_message}", "renew or replace it"
        )
    word = getattr(error, "reason", None) or ""
    if isinstance(error, TimeoutError):
        return LinkError("timeout", f"{address} does not answer in TLS within {timeout:g} s", "is it a TLS port?")
    if "CERTIFICATE_REQUIRED" in word or "HANDSHAKE_FAILURE" in word:
        return LinkError(
            "certificate", f"{address} demands a client certificate", "set mqtt.cert_file and mqtt.key_file"
        )
    if "ALERT" in word and ("CERT" in word or "UNKNOWN_CA" in word or "ACCESS_DENIED" in word):
        return LinkError(
            "certificate",
            f"{address} refuses our client certificate ({word.lower().replace('_', ' ')})",
            "check mqtt.cert_file and mqtt.key_file",
        )
    if "NO_APPLICATION_PROTOCOL" in word:
        return LinkError("tls", f"{address} knows none of the protocols of mqtt.alpn", "check mqtt.alpn")
    if word in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG") or (
        not word or isinstance(error, ssl.SSLEOFError)
    ):
        plain = "ws" if url.websocket else "mqtt"
        return LinkError(
            "tls", f"{address} does not speak TLS", f"use its TLS port (often 8883), or {plain}:// without TLS"
        )
    return LinkError("tls", f"TLS with {address} failed: {word.lower().replace('_', ' ')}", "look at the broker's log")


def unanswered(first: bytes, url: BrokerUrl, settings: MqttSettings) -> LinkError:
    """The connection ended before CONNACK. first: the first bytes that came, which tell what it is that answers."""
    if first[:2] == b"\x20\x02" and len(first) == 4:
        # A CONNACK of 3.1.1 after all: to MQTT 5 it is malformed, and paho keeps code 1, "protocol version", to itself.
        return from_code(from_connack(first[3]), "", url, settings, "")
    if first[:1] in (b"\x15", b"\x16") and first[1:2] == b"\x03":  # a TLS record: alert or handshake
        scheme = "wss" if url.websocket else "mqtts"
        return LinkError("tls", f"{url.address} speaks TLS", f"use {scheme}://")
    if first == b"HTTP":
        remedy = "check the port in mqtt.urls; a WebSocket needs ws:// or wss://"
        return LinkError("protocol", f"{url.address} speaks HTTP", remedy)
    if first:
        return LinkError(
            "protocol", f"{url.address} answers {first!r}, which is not MQTT", "check the port in mqtt.urls"
        )
    return LinkError(
        "lost",
        f"{url.address} closed the connection without an answer",
        "is it an MQTT port? a TLS port needs mqtts://; else look at the broker's log",
    )


def not_mqtt(what: str, url: BrokerUrl) -> LinkError:
    """Bytes came that no broker sends."""
    return LinkError("protocol", f"{url.address} sent what is not MQTT ({what})", "check the port in mqtt.urls")


def silent(url: BrokerUrl) -> LinkError:
    """Nothing has come for too long, not even the answer to a ping."""
    return LinkError(
        "timeout", f"{url.address} has fallen silent", "the network or the broker is down; see mqtt.keepalive"
    )


def unacknowledged(topic: str, url: BrokerUrl, timeout: float) -> LinkError:
    """A PUBACK or PUBCOMP has not come in time."""
    return LinkError(
        "timeout",
        f"{url.address} has not acknowledged a message to {topic} for {timeout:g} s",
        "look at the broker's log; see mqtt.ack_timeout",
    )


def too_large(count: int, size: int, topic: str, url: BrokerUrl) -> LinkError:
    """It ends connections over a large message. count: how many of them so far; 0: as it is certain now."""
    if not count:
        message = f"{url.address} closes the connection when it gets {size} bytes at once, as to {topic}"
        return LinkError("too_large", message, "what is larger is split or set aside; raise the broker's limit")
    message = f"{url.address} has closed {count} connections in a row while it got a message of {size} bytes to {topic}"
    return LinkError("too_large", message, "it is sent alone now, to see whether it is too large for the broker")


def is_tls(error: OSError | None) -> TypeGuard[ssl.SSLError]:
    """Whether it is an error of ``ssl``. To ask that module itself would load it, for every connection that breaks."""
    return type(error).__module__ == "ssl"


def is_alert(error: OSError | None) -> TypeGuard[ssl.SSLError]:
    """Whether the other side has said by TLS what it does not like; with TLS 1.3 that comes after the handshake."""
    return is_tls(error) and "ALERT" in (error.reason or "")


def broken(error: OSError | None, ended: bool, url: BrokerUrl, timeout: float) -> LinkError:
    """A connection that was up has ended. error: what the socket said; ended: the other side has closed."""
    if is_alert(error):
        return from_tls(error, url, timeout)
    if is_tls(error):  # cut off in the middle: most often the broker has died
        return LinkError("lost", f"{url.address} closed the connection")
    if isinstance(error, ConnectionAbortedError):
        return not_mqtt(str(error), url)
    if error is not None:
        return LinkError("lost", f"the connection to {url.address} broke ({error.strerror or error})")
    if ended:
        return LinkError("lost", f"{url.address} closed the connection")
    return not_mqtt("malformed packet", url)
