"""Checks by name: the catalogue's own check values, known sums, names that are not known."""

from __future__ import annotations

import binascii
import pickle
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.framing_check import ALIASES, CRCS, SUMS, check_named


@pytest.mark.parametrize("name", CRCS)
def test_a_crc_gives_the_check_value_of_the_catalogue(name: str) -> None:
    assert check_named(name).compute(b"123456789") == CRCS[name].check
    assert check_named(name).size * 8 == CRCS[name].width


@given(st.binary(max_size=300))
def test_crcs_agree_with_those_of_the_standard_library(data: bytes) -> None:
    assert check_named("crc-32").compute(data) == zlib.crc32(data)
    assert check_named("crc-16/xmodem").compute(data) == binascii.crc_hqx(data, 0)
    assert check_named("crc-16/ibm-3740").compute(data) == binascii.crc_hqx(data, 0xFFFF)


@pytest.mark.parametrize(
    ("name", "data", "value"),
    [
        ("sum8", b"\xff\x02", 0x01),
        ("sum8-ones", b"\x01\x02", 0xFC),
        ("sum8-twos", bytes.fromhex("01 86 00 00 00 00 00"), 0x79),  # MH-Z19B user's manual, command 0x86
        ("sum16", b"\xff" * 258, 0x00FE),  # 258 * 255 = 0x100FE
        ("xor8", b"\x0f\xf0\x01", 0xFE),
        ("fletcher-16", b"abcde", 0xC8F0),  # the usual test vectors of Fletcher-16
        ("fletcher-16", b"abcdefgh", 0x0627),
        ("fletcher-16/ubx", bytes.fromhex("06 08 06 00 e8 03 01 00 01 00"), 0x3901),  # UBX-CFG-RATE of 1 s: 01 39
    ],
)
def test_a_sum(name: str, data: bytes, value: int) -> None:
    assert check_named(name).compute(data) == value


def test_names_in_letters_of_any_case_and_the_other_names_of_the_catalogue() -> None:
    assert check_named("CRC-16/CCITT-FALSE").name == "crc-16/ibm-3740"
    assert set(ALIASES.values()) <= CRCS.keys()
    assert not ALIASES.keys() & (CRCS.keys() | SUMS.keys())


@pytest.mark.parametrize("name", ["crc-16/modbus", "sum8", "fletcher-16/ubx"])
def test_a_check_goes_to_another_process_by_its_name(name: str) -> None:
    check = check_named(name)
    assert pickle.loads(pickle.dumps(check)).compute(b"123456789") == check.compute(b"123456789")


@pytest.mark.parametrize(("name", "near"), [("crc16-modbus", "crc-16/modbus"), ("CRC-CCITT", "ccitt"), ("?", "sum8")])
def test_an_unknown_name_is_answered_with_those_that_are_like_it(name: str, near: str) -> None:
    with pytest.raises(ValueError, match=near):
        check_named(name)
