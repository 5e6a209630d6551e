"""Until when a certificate is valid, read by hand: against ``cryptography``'s own, and on damaged ones."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from agent.certificate import expiry


@cache
def certificate(end: datetime) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "board" * 12)])  # long: lengths of two bytes
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - timedelta(days=1))
        .not_valid_after(end)
        .sign(key, SHA256())
    )
    return made.public_bytes(Encoding.PEM)


# UTCTime to 2049, GeneralizedTime from 2050 on (RFC 5280, section 4.1.2.5); "50" and more are of the last century.
ENDS = [datetime(y, 12, 31, 23, 59, 58, tzinfo=UTC) for y in (1999, 2026, 2049, 2050, 9999)]


@pytest.mark.parametrize("end", ENDS, ids=str)
def test_the_end_is_the_certificate_s(end: datetime) -> None:
    pem = certificate(end)
    assert expiry(pem) == int(end.timestamp())
    assert expiry(b"words before it\r\n" + pem.replace(b"\n", b"\r\n") + certificate(ENDS[0])) == int(end.timestamp())


@given(st.data())
def test_a_damaged_one_is_said_to_be(data: st.DataObject) -> None:
    pem = bytearray(certificate(ENDS[1]))
    at = data.draw(st.integers(0, len(pem) - 1))
    pem[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(pem)))
    for damaged in (bytes(pem), bytes(pem[:cut])):
        with suppress(ValueError):  # and no other error
            assert isinstance(expiry(damaged), int)
