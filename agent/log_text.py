"""What all forms of the log have in common: severity, time, and what is never shown. Pure."""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime

_PRIORITY = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.DEBUG, 7))
_USERINFO = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^/\s@\"']*@")


def priority(level: int) -> int:
    """syslog's number of a level (RFC 5424, section 6.2.1)."""
    return next((number for least, number in _PRIORITY if level >= least), 7)


def masked(text: str) -> str:
    """A text without what stands before the "@" of a URL in it: a driver's error may quote one (decision 008)."""
    return _USERINFO.sub(r"\1***@", text) if "@" in text else text


def timestamp(record: logging.LogRecord) -> str:
    """When it was written, RFC 3339 with milliseconds, in UTC."""
    when = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
    return f"{when[:-3]}Z"
