"""The client's certificate: until when it is valid, told 30 days ahead, and seen when it is replaced.

Every connection reads certificate and key afresh (``agent.mqtt_connect``), so a renewed one is used from the next
connection on. The present one goes on: a broker looks at a certificate in the handshake alone, and cutting a good
connection would only delay readings.
"""

from __future__ import annotations

import base64
import binascii
import logging
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.clock import Clock, rfc3339
from agent.events import EventManager, WorkRejected
from agent.hotplug import PathWatch
from agent.logline import line

AHEAD_DAYS, URGENT_DAYS = 30, 7
DAY = 86_400
READ_TIMEOUT = 30.0
"""Seconds for a file of some kilobytes."""
_LONGEST = 1 << 20
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18  # X.690, section 8; RFC 5280, section 4.1


def expiry(pem: bytes) -> int:
    """When the first certificate of a PEM file ends (RFC 5280, section 4.1.2.5), in seconds since 1970.

    Raises ValueError. By hand, as the standard library has no public way, and a running agent needs no more of X.509.
    """
    found = _PEM.search(pem)
    if found is None:
        raise ValueError("there is no certificate in it, in PEM")
    try:
        der = base64.b64decode(b"".join(found[1].split()), validate=True)
        to_be_signed = _element(_element(der, 0, _SEQUENCE)[0], 0, _SEQUENCE)[0]
        at = _skip(to_be_signed, 0) if to_be_signed[0] == _VERSION else 0
        for _ in ("serial number", "algorithm of the signature", "issuer"):
            at = _skip(to_be_signed, at)
        validity = _element(to_be_signed, at, _SEQUENCE)[0]
        return _time(validity, _skip(validity, 0))
    except (binascii.Error, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"its certificate is damaged ({error})") from None


def _length(der: bytes, at: int) -> tuple[int, int]:
    """Of the element at that offset: where its content begins and where it ends."""
    size, begin = der[at + 1], at + 2
    if size & 0x80:
        count = size & 0x7F
        size, begin = int.from_bytes(der[begin : begin + count], "big"), begin + count
    if begin + size > len(der):
        raise IndexError("cut short")
    return begin, begin + size


def _skip(der: bytes, at: int) -> int:
    return _length(der, at)[1]


def _element(der: bytes, at: int, tag: int) -> tuple[bytes, int]:
    if der[at] != tag:
        raise IndexError(f"0x{tag:02x} is due, not 0x{der[at]:02x}")
    begin, end = _length(der, at)
    return der[begin:end], end


def _time(der: bytes, at: int) -> int:
    begin, end = _length(der, at)
    text = der[begin:end].decode("ascii")
    if der[at] == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    elif der[at] != _GENERALIZED_TIME:
        raise IndexError("no time")
    return int(datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp())


def days_left(expires: int, clock: Clock) -> int:
    """Whole days; negative once it is over."""
    return (expires - clock.wall_ns(clock.mono_ns()) // 1_000_000_000) // DAY


class CertificateWatch:
    """Looks at a file at the start, when it is replaced, and once a day. path None: there is nothing to watch."""

    def __init__(
        self, manager: EventManager, clock: Clock, path: Path | None, log: logging.Logger | None = None
    ) -> None:
        self._manager = manager
        self._clock = clock
        self._path = None if path is None else path.absolute()
        self._log = log or logging.getLogger("outstation.certificate")
        self._paths: PathWatch | None = None
        self._expires: int | None = None
        self._problem: str | None = None

    def start(self) -> None:
        """Look, and go on looking."""
        if self._path is None:
            return
        self._paths = PathWatch()
        self._paths.add(str(self._path), "certificate")
        self._manager.create_socket_event(self._paths, on_readable=self._changed, name="certificate")
        self._manager.create_timer_event(float(DAY), self._look, first_after=0.0, name="certificate.day")

    def close(self) -> None:
        """At the end of the agent. Idempotent."""
        if self._paths is not None:
            self._paths.close()
            self._paths = None

    def report(self) -> dict[str, Any] | None:
        """Its part of the status report; None without a certificate, or before it was read."""
        if self._problem is not None:
            return {"expires": None, "days_left": None, "problem": self._problem}
        if self._expires is None:
            return None
        expires = rfc3339(self._expires * 1_000_000_000)
        return {"expires": expires, "days_left": days_left(self._expires, self._clock), "problem": None}

    def _changed(self) -> None:
        if self._paths is not None and self._paths.read():
            self._look()

    def _look(self) -> None:
        try:
            self._manager.execute_work(
                self._read, on_done=self._found, on_error=self._unread, timeout=READ_TIMEOUT, name="certificate"
            )
        except WorkRejected as full:
            self._unread(full)

    def _read(self) -> int:
        assert self._path is not None
        with self._path.open("rb") as file:
            return expiry(file.read(_LONGEST))

    def _found(self, expires: int) -> None:
        before, self._expires, self._problem = self._expires, expires, None
        left, when = days_left(expires, self._clock), rfc3339(expires * 1_000_000_000)
        if before is not None and before != expires:
            self._log.info(
                line("certificate.renewed", path=self._path, expires=when, used="from the next connection on")
            )
        if left <= AHEAD_DAYS:
            self._log.log(
                logging.ERROR if left <= URGENT_DAYS else logging.WARNING,
                line("certificate.expires", path=self._path, at=when, days_left=left, remedy="see docs/enrolment.md"),
            )

    def _unread(self, error: BaseException) -> None:
        self._problem = (error.strerror if isinstance(error, OSError) else None) or str(error)
        self._log.error(line("certificate.unreadable", path=self._path, reason=self._problem))
