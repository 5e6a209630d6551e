"""The frames of RFC 6455, whose section 5.7 gives the examples."""

from __future__ import annotations

import base64
import hashlib

import pytest

from agent.mqtt_websocket import WebSocketStream, check_answer, frame, mask, request

KEY = b"the sample nonce"  # RFC 6455, section 1.3


def unmask(data: bytes) -> tuple[int, bytes]:
    """(opcode, payload) of one client's frame, by the book: byte by byte."""
    size, at = data[1] & 0x7F, 2
    if size >= 126:
        width = 2 if size == 126 else 8
        size, at = int.from_bytes(data[2 : 2 + width], "big"), 2 + width
    assert data[1] & 0x80, "a client masks"
    key, payload = data[at : at + 4], data[at + 4 :]
    assert len(payload) == size
    return data[0] & 0x0F, bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))


def test_the_handshake_is_that_of_the_standard() -> None:
    text = request("h:80", "/mqtt?x", KEY).decode()
    assert text.startswith("GET /mqtt?x HTTP/1.1\r\nHost: h:80\r\n")
    assert "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" in text
    assert text.endswith("\r\n\r\n")
    good = (
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nConnection: Upgrade\r\n"
        b"sec-websocket-accept:  s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: mqtt"
    )
    check_answer(good, KEY)


@pytest.mark.parametrize(
    ("head", "word"),
    [
        (b"HTTP/1.1 404 Not Found\r\nServer: x", "HTTP 404 Not Found"),
        (b"SSH-2.0-OpenSSH_9.2", "not HTTP"),
        (b"HTTP/1.1 101 Ok\r\nSec-WebSocket-Accept: AAAA\r\nSec-WebSocket-Protocol: mqtt", "Accept"),
        (b"HTTP/1.1 101 Ok\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "protocol mqtt"),
    ],
)
def test_another_answer_is_named(head: bytes, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        check_answer(head, KEY)


def test_accept_is_computed_as_the_standard_says() -> None:
    # The example's own words, so that the test above does not merely repeat the code.
    key = base64.b64encode(KEY) + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    assert base64.b64encode(hashlib.sha1(key).digest()) == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize("size", [0, 1, 3, 4, 125, 126, 65_535, 65_536])
def test_what_goes_out_is_masked_and_has_the_right_length(size: int) -> None:
    data = bytes(range(256)) * 257
    assert unmask(frame(data[:size])) == (2, data[:size])


def test_masking_twice_gives_the_data_back() -> None:
    assert mask(mask(b"\x00\x01hello\x00", b"\x00\xffab"), b"\x00\xffab") == b"\x00\x01hello\x00"


STREAM = (
    b"\x82\x03abc"  # a frame
    b"\x02\x01d\x80\x01e"  # a message of two fragments
    b"\x89\x02hi"  # a ping between
    b"\x82\x7e\x00\x80" + b"f" * 128 + b"\x8a\x00"  # an unasked pong
    b"\x82\x7f" + (70_000).to_bytes(8, "big") + b"g" * 70_000
)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 127, 4096, 100_000])
def test_frames_give_the_same_bytes_however_they_are_cut(step: int) -> None:
    stream = WebSocketStream()
    out = b"".join(stream.feed(STREAM[at : at + step]) for at in range(0, len(STREAM), step))
    assert out == b"abcde" + b"f" * 128 + b"g" * 70_000
    assert unmask(stream.reply) == (0xA, b"hi")
    assert not stream.closed


def test_close_is_answered_and_ends_it() -> None:
    stream = WebSocketStream()
    assert stream.feed(b"\x82\x01a\x88\x04\x03\xe8by\x82\x01b") == b"a"
    assert stream.closed
    assert unmask(stream.reply) == (8, b"\x03\xe8")


@pytest.mark.parametrize(
    "data",
    [b"\x81\x01a", b"\xc2\x01a", b"\x82\x81aaaab", b"\x89\x7e\x00\x80", b"\x83\x00"],
    ids=lambda data: data.hex(),
)
def test_what_a_server_must_not_send_is_refused(data: bytes) -> None:
    with pytest.raises(ConnectionAbortedError):
        WebSocketStream().feed(data)
