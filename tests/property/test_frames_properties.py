"""Frames and packets under arbitrary bytes: never an exception, the same however cut, no good frame lost, linear time.

``OUTSTATION_FUZZ=1000000`` runs so many examples of each, in place of a hundred.
"""

from __future__ import annotations

import json
import os
import random
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.codec import encode_fields
from agent.driver import Parser
from agent.driver_frames import FrameParser
from agent.framing_check import check_named
from agent.framing_frames import FrameFramer, Layout, Length
from agent.framing_packets import CODINGS, PacketFramer, Packets
from agent.model import FAULT_KINDS, Fault
from drivers.frames import FramesConfig
from drivers.mhz19 import Mhz19Parser
from drivers.pms5003 import Pms5003Parser
from drivers.sds011 import Sds011Parser

fuzzed = settings(deadline=None, max_examples=int(os.environ.get("OUTSTATION_FUZZ", "100")))
PARSERS: dict[str, tuple[Callable[[], Parser], bytes]] = {
    "sds011": (Sds011Parser, bytes.fromhex("aa c0 d4 04 3a 0a a1 60 1d ab")),
    "pms5003": (lambda: Pms5003Parser("pms5003"), b"\x42\x4d\x00\x1c" + bytes(26) + b"\x00\xab"),
    "pms5003t": (lambda: Pms5003Parser("pms5003t"), b"\x42\x4d\x00\x1c" + bytes(26) + b"\x00\xab"),
    "mhz19": (lambda: Mhz19Parser(True), bytes.fromhex("ff 86 02 20 00 00 00 00 58")),
}
CASES = Path(__file__).parents[1] / "cases" / "frames"


def of_case(name: str) -> tuple[Callable[[], Parser], bytes]:
    """A parser by the configuration of a golden case, and the first bytes of its input."""
    config = FramesConfig(**tomllib.loads((CASES / name / "device.toml").read_text()))
    lines = (line.partition("#")[0] for line in (CASES / name / "input.hex").read_text().splitlines())
    return lambda: FrameParser(config), next(bytes.fromhex(line) for line in lines if line)


PARSERS |= {name: of_case(name) for name in ("jbd-battery", "distance", "ubx", "cobs", "slip")}
parsers = pytest.mark.parametrize(("make", "frame"), PARSERS.values(), ids=list(PARSERS))


def streams(frame: bytes) -> st.SearchStrategy[bytes]:
    """Noise, the frame, pieces of it, and the frame with a byte changed."""
    pieces = st.tuples(st.integers(0, len(frame)), st.integers(0, len(frame))).map(lambda cut: frame[cut[0] : cut[1]])
    changed = st.tuples(st.integers(0, len(frame) - 1), st.integers(0, 255)).map(
        lambda change: frame[: change[0]] + bytes([change[1]]) + frame[change[0] + 1 :]
    )
    return st.lists(st.just(frame) | pieces | changed | st.binary(max_size=20), max_size=12).map(b"".join)


def cut(data: bytes, seed: int) -> Iterable[bytes]:
    rng = random.Random(seed)
    at = 0
    while at < len(data):
        step = rng.choice((1, 2, 7, 500))
        yield data[at : at + step]
        at += step


def fed(parser: Any, pieces: Iterable[bytes]) -> list[Any]:
    return [item for piece in pieces for item in parser.feed(piece)] + list(parser.end())


@parsers
@fuzzed
@given(data=st.data(), seed=st.integers(0, 2**16))
def test_any_bytes_give_the_same_items_however_they_are_cut(
    make: Callable[[], Parser], frame: bytes, data: st.DataObject, seed: int
) -> None:
    stream = data.draw(streams(frame))
    items = fed(make(), [stream])
    assert repr(fed(make(), cut(stream, seed))) == repr(items)
    for item in items:
        if isinstance(item, Fault):
            assert item.kind in FAULT_KINDS
            assert item.detail.isprintable()
        else:
            assert json.loads(encode_fields(item.fields)) == item.fields


CRC = check_named("crc-32")
LONG = Layout(Length(1, 2, "big", add=7), sync=b"\x7e", check=CRC, longest=300)
SHORT = Layout(8, check=CRC)


def long_frame(payload: bytes) -> bytes:
    body = b"\x7e" + len(payload).to_bytes(2, "big") + payload
    return body + CRC.compute(body).to_bytes(4, "big")


@fuzzed
@given(
    parts=st.lists(st.tuples(st.binary(max_size=12) | st.just(b"\x7e\x01"), st.binary(max_size=40)), max_size=8),
    seed=st.integers(0, 2**16),
)
def test_no_good_frame_is_lost_to_the_noise_before_it(parts: list[tuple[bytes, bytes]], seed: int) -> None:
    """Under a CRC of 32 bits no noise of this size is taken for a frame."""
    for layout, frames in (
        (LONG, [long_frame(payload) for _, payload in parts]),
        (SHORT, [(b := payload[:4].ljust(4)) + CRC.compute(b).to_bytes(4, "big") for _, payload in parts]),
    ):
        stream = b"".join(noise + frame for (noise, _), frame in zip(parts, frames, strict=True))
        items = fed(FrameFramer(layout), cut(stream, seed))
        assert [item for item in items if isinstance(item, bytes)] == frames
        assert fed(FrameFramer(layout), [stream]) == items


@pytest.mark.parametrize("packets", CODINGS)
@fuzzed
@given(
    payloads=st.lists(st.binary(min_size=1, max_size=600) | st.just(bytes(range(1, 255)) * 2)), seed=st.integers(0, 9)
)
def test_packets_come_out_as_they_went_in(packets: Packets, payloads: list[bytes], seed: int) -> None:
    coding = CODINGS[packets]
    wire = [coding.encode(payload) for payload in payloads]
    assert fed(PacketFramer(packets, 600), cut(b"".join(wire), seed)) == [p for p in payloads if len(p) <= 600]
    for payload, packet in zip(payloads, wire, strict=True):
        assert len(packet.strip(coding.delimiter)) <= coding.most(len(payload))


@pytest.mark.parametrize("packets", CODINGS)
@fuzzed
@given(
    data=st.lists(st.sampled_from([b"\0", b"\x01", b"\x03", b"\xff", b"\xc0", b"\xdb", b"\xdc", b"ab"])),
    seed=st.integers(0, 9),
)
def test_any_packets_give_the_same_items_however_they_are_cut(packets: Packets, data: list[bytes], seed: int) -> None:
    stream = b"".join(data)
    items = fed(PacketFramer(packets, 6), [stream])
    assert fed(PacketFramer(packets, 6), cut(stream, seed)) == items
    assert all(item if isinstance(item, bytes) else item.kind in FAULT_KINDS for item in items)


@pytest.mark.parametrize(("make", "frame"), list(PARSERS.values())[:-2], ids=list(PARSERS)[:-2])  # no packets
@pytest.mark.parametrize("chunk", [1, 4096])
def test_what_is_kept_and_what_is_computed_is_bounded(
    make: Callable[[], Parser], frame: bytes, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work counted, not timed: bytes under a check for each byte of the worst noise, of 8 and of 16 KiB."""
    looked_at = 0
    wrong_end = Layout._wrong_end

    def counting(layout: Layout, candidate: bytes) -> Fault | None:
        nonlocal looked_at
        looked_at += len(candidate)
        return wrong_end(layout, candidate)

    monkeypatch.setattr(Layout, "_wrong_end", counting)
    noise = (frame[:4] + frame[:2] + frame[:-1]) * 2000
    most = make()._framer._layout.most  # type: ignore[attr-defined]
    work = []
    for size in (8192, 16384):
        looked_at = 0
        parser = make()
        for at in range(0, size, chunk):
            parser.feed(noise[at : min(at + chunk, size)])
            assert len(parser._framer._buffer) <= most  # type: ignore[attr-defined]
        work.append(looked_at)
    assert work[0] <= 8192 * most
    assert work[1] <= 2 * work[0] + 2 * most
