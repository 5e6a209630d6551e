"""Packets set apart by a byte that never occurs in them: SLIP (RFC 1055) and COBS. Pure, linear, bounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, NamedTuple, TypeAlias

from agent.framing import LineFramer
from agent.model import Fault

Packets: TypeAlias = Literal["slip", "cobs"]
"""How packets are told apart, as the configuration says it."""

END, ESC, ESC_END, ESC_ESC = b"\xc0", b"\xdb", b"\xdc", b"\xdd"
"""SLIP's characters: RFC 1055, "Protocol"."""


def slip_encode(payload: bytes) -> bytes:
    """A SLIP packet. It begins with END too, as RFC 1055 advises, so that noise before it is a packet of its own."""
    return END + payload.replace(ESC, ESC + ESC_ESC).replace(END, ESC + ESC_END) + END


def slip_decode(packet: bytes) -> bytes:
    """The payload of what stands between two ENDs. Raises ValueError at an escape that RFC 1055 does not have.

    RFC 1055 would let such a byte pass, "the best bet". Here the packet counts as garbled.
    """
    parts = packet.split(ESC)
    for part in parts[1:]:
        if part[:1] not in (ESC_END, ESC_ESC):  # b"" too: at the end, or two ESC in a row
            raise ValueError(
                f"SLIP's escape db is followed by {part[:1].hex() or 'none of its bytes'}, not by dc or dd"
            )
    return parts[0] + b"".join((END if part[:1] == ESC_END else ESC) + part[1:] for part in parts[1:])


def cobs_encode(payload: bytes) -> bytes:
    """A COBS packet with the zero that ends it (Cheshire and Baker, IEEE/ACM Transactions on Networking 7(2), 1999)."""
    packet = bytearray()
    groups = payload.split(b"\0")
    for last, group in zip([*[False] * (len(groups) - 1), True], groups, strict=True):
        while len(group) >= 254:
            packet += b"\xff" + group[:254]
            group = group[254:]
            if last and not group:  # code ff stands for no zero: nothing is left to say
                return bytes(packet + b"\0")
        packet.append(len(group) + 1)
        packet += group
    return bytes(packet + b"\0")


def cobs_decode(packet: bytes) -> bytes:
    """The payload of what stands between two zeros. Raises ValueError at a zero, or a code that points past the end."""
    if 0 in packet:
        raise ValueError("a zero within a COBS packet")
    payload = bytearray()
    at, end = 0, len(packet)
    while at < end:
        code = packet[at]
        if at + code > end:
            raise ValueError(f"COBS's code {code:02x} at {at} tells {code - 1} bytes, where {end - at - 1} are left")
        payload += packet[at + 1 : at + code]
        at += code
        if code < 0xFF and at < end:
            payload.append(0)
    return bytes(payload)


class Coding(NamedTuple):
    """delimiter: the byte between packets; most: bytes on the wire for n of payload, at most."""

    delimiter: bytes
    encode: Callable[[bytes], bytes]
    decode: Callable[[bytes], bytes]
    most: Callable[[int], int]


CODINGS: Final[dict[Packets, Coding]] = {
    "slip": Coding(END, slip_encode, slip_decode, lambda n: 2 * n),
    "cobs": Coding(b"\0", cobs_encode, cobs_decode, lambda n: n + n // 254 + 1),
}


class PacketFramer:
    """Splits a stream into the payloads of its packets; the same bytes give the same items however they are cut.

    Empty packets are dropped: SLIP's senders begin with END, and both mark silence so. What cannot be decoded is a
    Fault("syntax"), a payload of more than ``longest`` bytes a Fault("too_long").

    Who opens a port within a packet reads its tail first: only a check, or the payload's form, shows that.
    """

    def __init__(self, packets: Packets, longest: int = 4096) -> None:
        """longest: bytes of a payload."""
        coding = CODINGS[packets]
        self._packets: Packets = packets
        self._longest = longest
        self._framer = LineFramer(coding.delimiter, coding.most(longest), "packet")

    def feed(self, data: bytes) -> list[bytes | Fault]:
        """The payloads that data completes, in order, with a Fault for what is none."""
        items = (self._payload(item) if isinstance(item, bytes) else item for item in self._framer.feed(data))
        return [item for item in items if item != b""]

    def end(self) -> list[Fault]:
        """The stream ends: half a packet is a Fault("cut"). Afterwards the framer is as new."""
        return self._framer.end()

    def _payload(self, packet: bytes) -> bytes | Fault:
        try:
            payload = CODINGS[self._packets].decode(packet)
        except ValueError as error:
            return Fault("syntax", str(error), packet)
        if len(payload) > self._longest:
            return Fault("too_long", f"a packet of more than {self._longest} bytes", packet)
        return payload
