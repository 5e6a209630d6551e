"""SLIP and COBS: the examples of their own texts, and what is garbled."""

from __future__ import annotations

import pytest

from agent.framing_packets import PacketFramer, cobs_decode, cobs_encode, slip_decode, slip_encode
from agent.model import Fault

# The examples of the article on COBS in Wikipedia, "Encoding examples", 1 to 11; the end of each is the zero.
TO_254 = bytes(range(1, 255))
COBS = [
    (bytes(1), "01 01 00"),
    (bytes(2), "01 01 01 00"),
    (bytes.fromhex("00 11 00"), "01 02 11 01 00"),
    (bytes.fromhex("11 22 00 33"), "03 11 22 02 33 00"),
    (bytes.fromhex("11 22 33 44"), "05 11 22 33 44 00"),
    (bytes.fromhex("11 00 00 00"), "02 11 01 01 01 00"),
    (TO_254, "ff" + TO_254.hex() + "00"),
    (b"\0" + TO_254, "01 ff" + TO_254.hex() + "00"),
    (TO_254 + b"\xff", "ff" + TO_254.hex() + "02 ff 00"),
    (TO_254[1:] + b"\xff\0", "ff" + TO_254[1:].hex() + "ff 01 01 00"),
    (TO_254[2:] + b"\xff\0\x01", "fe" + TO_254[2:].hex() + "ff 02 01 00"),
]


@pytest.mark.parametrize(("payload", "packet"), COBS, ids=range(1, 12))
def test_cobs(payload: bytes, packet: str) -> None:
    assert cobs_encode(payload) == bytes.fromhex(packet)
    assert cobs_decode(bytes.fromhex(packet)[:-1]) == payload


def test_slip() -> None:
    """The escapes of RFC 1055, "Protocol"."""
    assert slip_encode(b"a\xc0\xdbb") == b"\xc0a\xdb\xdc\xdb\xddb\xc0"
    assert slip_decode(b"a\xdb\xdc\xdb\xddb") == b"a\xc0\xdbb"


@pytest.mark.parametrize("packet", [b"a\xdb", b"\xdba", b"\xdb\xdb\xdd"])
def test_an_escape_that_slip_does_not_have(packet: bytes) -> None:
    with pytest.raises(ValueError, match="escape db is followed by"):
        slip_decode(packet)


@pytest.mark.parametrize("packet", ["05 11", "02 11 03 22", "02 00", "00"])
def test_what_is_not_cobs(packet: str) -> None:
    with pytest.raises(ValueError, match="COBS"):
        cobs_decode(bytes.fromhex(packet))


def test_packets_in_a_stream() -> None:
    framer = PacketFramer("slip", longest=4)
    assert framer.feed(b"tail\xc0\xc0\xc0one\xc0\xdbx\xc0") == [
        b"tail",
        b"one",
        Fault("syntax", "SLIP's escape db is followed by 78, not by dc or dd", b"\xdbx"),
    ]
    assert framer.feed(b"\xdb\xdc" * 4 + b"\xc0") == [b"\xc0" * 4]  # 4 bytes, 8 on the wire
    assert framer.feed(b"12345\xc0") == [Fault("too_long", "a packet of more than 4 bytes", b"12345")]
    assert framer.feed(b"123456789") == [Fault("too_long", "a packet of more than 8 bytes", b"12345678")]
    assert framer.feed(b"0" * 99 + b"\xc0two\xc0ha") == [b"two"]
    assert framer.end() == [Fault("cut", "the stream ended within a packet", b"ha")]
    cobs = PacketFramer("cobs")
    assert cobs.feed(bytes.fromhex("00 01 00 00 02 61 00 09 00")) == [
        b"a",
        Fault("syntax", "COBS's code 09 at 0 tells 8 bytes, where 0 are left", b"\x09"),
    ]
