"""Where log lines go and how they look: for people on a terminal or in a file, with priorities under journald."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TextIO

LEVELS = ("error", "warning", "info", "debug")
"""What may be asked for, the least first: error: somebody must act; debug: every reading."""

_PRIORITY = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.DEBUG, 7))


def under_journald(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether the stream is the journal's own: JOURNAL_STREAM holds its device and inode (systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # a stream without a descriptor
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class JournalFormatter(logging.Formatter):
    """``<4>link.lost ...``: a priority on every line (sd-daemon(3)), no time stamp, for the journal has its own."""

    def format(self, record: logging.LogRecord) -> str:
        priority = next((p for level, p in _PRIORITY if record.levelno >= level), 7)
        return "\n".join(f"<{priority}>{text}" for text in super().format(record).splitlines())


class PlainFormatter(logging.Formatter):
    """``2026-11-24T00:37:00.123Z WARNING link.lost ...``: UTC, so that logs of several boards can be compared."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        return f"{when}Z {record.levelname:<7} " + super().format(record).replace("\n", "\n    ")


def set_level(name: str) -> str:
    """Log from this level on, at once and for all that log here; the level before it.

    Raises ValueError, which names the levels.
    """
    if name not in LEVELS:
        raise ValueError(f"no level {name!r}: {', '.join(LEVELS)}")
    root = logging.getLogger()
    before = root.level
    root.setLevel(name.upper())
    return logging.getLevelName(before).lower()


def set_up(
    level: str = "info", stream: TextIO | None = None, environ: Mapping[str, str] = os.environ
) -> logging.Handler:
    """Send all log lines to the stream (default: stderr). Returns the handler, for tests to take away again."""
    target = stream or sys.stderr
    handler = logging.StreamHandler(target)
    handler.setFormatter(JournalFormatter() if under_journald(target, environ) else PlainFormatter())
    root = logging.getLogger()
    root.addHandler(handler)
    set_level(level)
    # Not shown, so not asked for: each costs a call a record.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    return handler
