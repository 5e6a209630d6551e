"""The Telnet of RFC 2217 by its bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.ports_rfc2217 import LONGEST, Telnet, escape

STREAM = b"a\xff\xffb\xff\xfd\x2c\xff\xfa\x2c\x65\x00\x00\xff\xff\x01\xff\xf0c\xff\xfb\x01d\xff\xf1e"


def all_of(pieces: list[bytes]) -> tuple[bytes, bytes, dict[int, bytes]]:
    telnet = Telnet()
    data = b"".join(map(telnet.receive, pieces))
    return data, bytes(telnet.reply), telnet.granted


def test_commands_are_taken_out_and_answered() -> None:
    data, reply, granted = all_of([STREAM])
    assert data == b"a\xffbcde"
    assert granted == {1: b"\x00\x00\xff\x01"}
    assert reply == b"\xff\xfe\x01", "an option that nobody offered is refused (RFC 855); ours is not answered twice"


def test_an_agreement_is_answered_once() -> None:
    telnet = Telnet()
    for _ in range(3):
        telnet.receive(b"\xff\xfd\x03\xff\xfb\x00")
    assert telnet.reply == b"\xff\xfb\x03"
    telnet.receive(b"\xff\xfe\x03\xff\xfe\x03")
    assert telnet.reply == b"\xff\xfb\x03\xff\xfc\x03"


def test_a_refusal_is_noted() -> None:
    telnet = Telnet()
    telnet.receive(b"\xff\xfe\x2c")
    assert telnet.refused
    assert not telnet.agreed


@given(st.lists(st.sampled_from([b"\xff", b"\xfa", b"\xf0", b"\xfd", b"\x2c", b"\x65", b"x", STREAM]), max_size=30))
def test_however_it_is_cut_it_is_the_same(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    assert all_of(pieces) == all_of([whole]) == all_of([bytes((byte,)) for byte in whole])


@given(st.binary(max_size=300))
def test_what_is_escaped_comes_back(data: bytes) -> None:
    assert Telnet().receive(escape(data)) == data


def test_an_endless_negotiation_needs_no_memory() -> None:
    telnet = Telnet()
    telnet.receive(b"\xff\xfa\x2c\x65" + b"x" * 100_000)
    telnet.receive(b"\xff\xff" * 1000 + b"\xff\xf0done")
    assert len(telnet.granted[1]) <= LONGEST
