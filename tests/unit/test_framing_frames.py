"""Binary frames found in a stream: by sync, size, check and tail, and again after noise."""

from __future__ import annotations

import pytest

from agent.framing_check import check_named
from agent.framing_frames import FrameFramer, Layout, Length
from agent.model import Fault

CRC = check_named("crc-16/modbus")
COUNTED = Layout(Length(2, 2, "little", add=6), sync=b"\xaa\x55", check=CRC, check_order="little", longest=64)


def counted(payload: bytes) -> bytes:
    body = b"\xaa\x55" + len(payload).to_bytes(2, "little") + payload
    return body + CRC.compute(body).to_bytes(2, "little")


def split(layout: Layout, *pieces: bytes) -> list[bytes | Fault]:
    framer = FrameFramer(layout)
    return [item for piece in pieces for item in framer.feed(piece)] + framer.end()


def kinds(items: list[bytes | Fault]) -> list[str | bytes]:
    return [item.kind if isinstance(item, Fault) else item for item in items]


def test_frames_follow_one_another() -> None:
    one, two, three = counted(b""), counted(b"two"), counted(bytes(58))
    assert split(COUNTED, one + two + three) == [one, two, three]


def test_a_frame_comes_out_with_its_last_byte() -> None:
    framer, frame = FrameFramer(COUNTED), counted(b"abc")
    assert framer.feed(frame[:-1]) == []
    assert framer.feed(frame[-1:]) == [frame]


def test_a_false_sync_whose_size_spans_the_next_frames_loses_none_of_them() -> None:
    frames = [counted(bytes([n, 0xAA, 0x55])) for n in range(9)]
    false = b"\xaa\x55\x20\x00"  # tells 38 bytes
    assert kinds(split(COUNTED, false + b"".join(frames))) == ["checksum", *frames]


def test_what_a_false_sync_held_back_comes_out_at_the_end() -> None:
    frame = counted(b"abc")
    framer = FrameFramer(COUNTED)
    assert framer.feed(b"\xaa\x55\x3a\x00" + frame) == []  # tells 64 bytes, which never come
    assert kinds(framer.end()) == ["cut", frame]
    assert framer.end() == []


def test_sizes_out_of_bounds() -> None:
    frame = counted(b"abc")
    items = split(COUNTED, b"\xaa\x55\xff\xff" + frame)
    assert kinds(items) == ["syntax", frame]
    assert items[0] == Fault("syntax", "tells 65541 bytes, where 6 to 64 are due", b"\xaa\x55\xff\xff")
    negative = Layout(Length(1, 1, "big", add=-9), sync=b"\x01", longest=32)
    assert kinds(split(negative, b"\x01\x09\x01\x02\x01\x0b")) == ["syntax", b"\x01\x0b"]  # 0, then -7, then 2 bytes


def test_noise_is_one_fault_up_to_the_next_frame_and_in_portions_when_there_is_much_of_it() -> None:
    frame = counted(b"abc")
    items = split(COUNTED, bytes(150) + frame)
    assert items == [*[Fault("syntax", "bytes that are no frame", bytes(n)) for n in (64, 64, 22)], frame]
    wide = Layout(Length(2, 2, "little", add=6), sync=b"\xaa\x55", check=CRC, check_order="little", longest=200)
    garbled = bytearray(counted(bytes(150)))
    garbled[80] = 1
    (fault, good) = split(wide, bytes(garbled) + frame)
    assert isinstance(fault, Fault)
    assert (fault.kind, fault.raw, good) == ("checksum", bytes(garbled[:64]), frame)


def test_half_a_sync_is_waited_for() -> None:
    framer, frame = FrameFramer(COUNTED), counted(b"abc")
    assert framer.feed(b"\x00\xaa") == []
    assert kinds(framer.feed(frame[1:])) == ["syntax", frame]
    assert kinds(framer.feed(b"\xaa")) == []
    assert kinds(framer.feed(frame)) == ["syntax", frame]
    assert kinds(framer.feed(b"\xaa")) + kinds(framer.end()) == ["cut"]


def test_without_sync_the_check_alone_finds_the_frame() -> None:
    layout = Layout(5, check=check_named("crc-8"))
    frame = b"\x01\x02\x03\x04\xe3"
    assert check_named("crc-8").compute(frame[:4]) == 0xE3
    assert kinds(split(layout, b"\x07\x01" + frame + frame)) == ["checksum", frame, frame]


def test_where_a_check_stands_and_what_it_covers() -> None:
    xor = check_named("xor8")
    layout = Layout(6, sync=b"$", tail=b"\n", check=xor, check_at=1, check_from=2, check_to=-1)
    assert split(layout, b"$\x03\x01\x02\x00\n") == [b"$\x03\x01\x02\x00\n"]
    (fault,) = split(layout, b"$\x04\x01\x02\x00\n")
    assert fault == Fault("checksum", "xor8 is 04, where 03 is due", b"$\x04\x01\x02\x00\n")
    (fault,) = split(layout, b"$\x03\x01\x02\x00.")
    assert fault == Fault("syntax", "does not end in 0a", b"$\x03\x01\x02\x00.")


@pytest.mark.parametrize(
    ("frame", "detail"),
    [
        (counted(b"abc"), None),
        (b"\xab\x55\x00\x00\x00\x00", "does not begin with aa 55"),
        (b"\xaa\x55", "2 bytes, where 6 are the least"),
        (counted(b"abc")[:-1], "8 bytes, where 9 are due"),
        (counted(b"abc")[:-1] + b"\0", "crc-16/modbus is 61 00, where 61 98 is due"),
    ],
)
def test_a_packet_is_judged_as_a_whole(frame: bytes, detail: str | None) -> None:
    wrong = COUNTED.wrong(frame)
    assert (wrong and wrong.detail) == detail


def test_a_check_outside_of_the_frame_is_wrong_and_no_error() -> None:
    layout = Layout(Length(0), check=CRC, check_at=5, longest=16)
    wrong = layout.wrong(b"\x04\x00\x00\x00")
    assert wrong is not None
    assert wrong.detail == "no room for crc-16/modbus in 4 bytes"
