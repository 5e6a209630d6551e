"""The recognisers: golden cases of the drivers are known as what they are, noise and wrong bit rates as nothing."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.driver import Sample
from agent.recognise import Guess, modbus_answers, modbus_question, recognise, text_line
from agent.registry import discover
from agent.testing.cases import new_parser, wire_bytes

CASES = Path(__file__).parents[1] / "cases"
KNOWN = ("nmea", "p1", "pms5003", "sds011", "sml")


def gives_readings(case: Path) -> bool:
    driver = discover().load(case.parent.name).cls
    assert driver is not None
    parser = new_parser(driver, case)
    return any(isinstance(item, Sample) for item in [*parser.feed(wire_bytes(case)), *parser.end()])


@pytest.mark.parametrize(
    "case",
    [path.parent for name in KNOWN for path in sorted((CASES / name).glob("*/device.toml"))],
    ids=lambda case: f"{case.parent.name}/{case.name}",
)
def test_what_a_driver_can_read_is_recognised_as_its(case: Path) -> None:
    guess = recognise(wire_bytes(case))
    if guess is None:
        assert not gives_readings(case)
    else:
        assert guess.driver == case.parent.name


@pytest.mark.parametrize(
    ("data", "options"),
    [
        (b'1}\r\n{"t": 21.5}\r\n{"t"', {"format": "json"}),
        (b"5\nt=21.5 h=44\nt=21.6 h=44\nt=-1e3 h=45\nt=", {"format": "kv"}),
        (b"\nt:1;h:2\nt:1;h:2;\nt:2;h:3\n", {"format": "kv", "delimiter": ";", "assign": ":"}),
        (b"2\r\n1,2,3\r\n4,5,-6.5\r\n7,,9\r\n1,", {"format": "csv", "columns": ["c1", "c2", "c3"]}),
        (
            b"\ntime;temp;state\n12:00;21.5;on\n12:01;21.6;off\n12:02;21.7;on\n",
            {"format": "csv", "columns": ["", "temp", ""], "delimiter": ";"},
        ),
        (b"1.5\r\n21.5\r\n 21.6\r\n-3\r\n2", {"format": "scalar"}),
    ],
)
def test_lines_are_recognised_by_their_form(data: bytes, options: dict[str, object]) -> None:
    guess = recognise(data)
    assert guess is not None
    assert (guess.driver, guess.options) == ("lines", options)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"$GPGGA,123519,4807.038,N*00\r\n" * 9,
        b"BM\x00\x1c" + b"\0" * 28,
        b"\xaa\xc0\x01\x02\x03\x04\x05\x06\x00\xab" * 5,
        b"Hello, World\n" * 9,
        b"OK\r\nREADY\r\n> \r\n" * 9,
        b"12\n",
    ],
)
def test_what_only_looks_like_something_is_not_taken_for_it(data: bytes) -> None:
    assert recognise(data) is None


def test_text_that_nobody_knows_is_shown() -> None:
    assert text_line(b"ELLO\r\nHello, World\r\nHel") == "Hello, World"
    assert text_line(b"\x80\xff\n\x03abc\n\xfe") is None
    assert text_line(b"") is None


@pytest.mark.parametrize("seed", range(50))
def test_noise_is_nothing(seed: int) -> None:
    rng = random.Random(seed)
    assert recognise(rng.randbytes(4000)) is None
    # As a UART reads what comes at another bit rate: few values, many of them alike.
    assert recognise(bytes(rng.choices((0x00, 0x80, 0xF8, 0xFE, 0xE0, 0x0A, 0x1B, 0xAA), k=4000))) is None


@given(st.lists(st.sampled_from([b"\x1b\x1b\x1b\x1b", b"\x01\x01\x01\x01", b"\x1a", b"/", b"!", b"\r\n", b"BM\x00\x1c",
                                 b"\xaa\xc0", b"{", b"1,2", b"a=1", b"$GP*00", b"x"]), max_size=200))  # fmt: skip
def test_any_bytes_give_a_guess_or_none(pieces: list[bytes]) -> None:
    assert isinstance(recognise(b"".join(pieces)), Guess | None)


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"", b"\x1b\x1b\x1b\x1b\x01\x01\x01\x01"),
        (b"\x1b\x1b\x1b\x1b\x01\x01\x01\x01", b"\x1b\x1b\x1b\x1b"),
        (b"/aaaaaa\r\n\r\n", b"1-0:1.8.1("),
        (b"", b"/aaaaaa\r\n\r\n1-0:1.8.1("),
        (b"", b"/aaaaa"),
        (b"", b"BM\x00\x1c"),
        (b"", b"\xaa\xc0"),
        (b"", b"$GPAAA"),
        (b"\n", b"a,"),
        (b"\n", b"1"),
        (b"", b"{"),
        (b"\n", b"a=1 "),
        (b"", b"1\n"),
        (b"", b"1,x\n"),
    ],
)
def test_twice_the_bytes_take_no_more_than_a_few_times_as_long(begin: bytes, piece: bytes) -> None:
    def took(size: int) -> float:
        data = begin + (piece * (size // len(piece)))
        best = 1e9
        for _ in range(3):
            started = time.process_time()
            recognise(data)
            best = min(best, time.process_time() - started)
        return best

    assert took(16_000) <= 3.5 * took(8_000) + 0.005  # quadratic is 4 times


def test_modbus_is_asked_by_reading_and_known_by_its_sum() -> None:
    # Modbus over serial line V1.02 has no example with a CRC; this pair is pymodbus's own.
    assert modbus_question(1) == bytes.fromhex("01 03 00 00 00 01 84 0a")
    assert modbus_answers(bytes.fromhex("00 01 03 02 00 05 78 47"), 1)
    assert modbus_answers(bytes.fromhex("01 83 02 c0 f1"), 1)
    assert not modbus_answers(bytes.fromhex("01 83 02 c0 f2"), 1)
    assert not modbus_answers(bytes.fromhex("01 83 02 c0 f1"), 2)
    assert not modbus_answers(modbus_question(1), 1), "an echo of the question"
