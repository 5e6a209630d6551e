"""Where log lines go and how they look: for people on a terminal or in a file, as fields in the journal, as JSON Lines.

Equal warnings and errors in a row are summed, whoever writes them: the 1st, 2nd, 4th, 8th ... is shown, and a sum once
another line comes.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TextIO, TypeAlias

from agent.log_text import masked, priority, timestamp
from agent.logline import Repeats, line

LEVELS = ("error", "warning", "info", "debug")
"""What may be asked for, the least first: error: somebody must act; debug: every reading."""

Form: TypeAlias = Literal["auto", "plain", "json"]

APART = 60.0
"""Seconds after which an equal line is a new one: what comes once an hour is no flood."""

JOURNAL = Path("/run/systemd/journal/socket")
"""Where journald takes records with fields (systemd's "Native Journal Protocol")."""


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
        number = priority(record.levelno)
        return "\n".join(f"<{number}>{text}" for text in masked(super().format(record)).splitlines())


class PlainFormatter(logging.Formatter):
    """``2026-11-24T00:37:00.123Z WARNING link.lost ...``: UTC, so that logs of several boards can be compared."""

    def format(self, record: logging.LogRecord) -> str:
        text = masked(super().format(record)).replace("\n", "\n    ")
        return f"{timestamp(record)} {record.levelname:<7} {text}"


class Sums(logging.Filter):
    """Of equal lines in a row lets through the 1st, 2nd, 4th, 8th ..., and tells their number when it is over.

    Warnings and errors alone: INFO is a state that has changed, and be it to the same for the third time.
    """

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__()
        self._handler = handler
        self._repeats = Repeats(limit=1)
        self._last = ""
        self._at = 0.0
        self._hidden = 0

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        again = text == self._last and 0 <= record.created - self._at < APART and not record.exc_info
        self._at = record.created
        if not again:
            count, hidden = self._repeats.over(self._last), self._hidden
            self._last, self._hidden = text, 0
            if hidden:
                told = line("log.repeated", times=count, hidden=hidden)
                sum_ = logging.LogRecord(record.name, record.levelno, record.pathname, 0, told, None, None)
                self._handler.handle(sum_)
                self._repeats.over(told)
                self._last = text
        if record.levelno < logging.WARNING or self._repeats(text):
            return True
        self._hidden += 1
        return False


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
    level: str = "info",
    stream: TextIO | None = None,
    environ: Mapping[str, str] = os.environ,
    *,
    form: Form = "auto",
    journal: Path = JOURNAL,
) -> logging.Handler:
    """Send all log lines to the stream (default: stderr). Returns the handler, for tests to take away again.

    form: auto: into the journal where the stream is the journal's, by its socket where that can be reached, else with
    priorities; plain lines for people everywhere else. plain, json: so, wherever it goes.
    """
    target = stream or sys.stderr
    handler: logging.Handler = logging.StreamHandler(target)
    if form == "json":
        from agent.log_fields import JsonFormatter

        handler.setFormatter(JsonFormatter())
    elif form == "auto" and under_journald(target, environ):
        handler.setFormatter(JournalFormatter())
        if journal.is_socket():
            from agent.log_fields import JournalHandler

            handler = JournalHandler(journal, handler)
    else:
        handler.setFormatter(PlainFormatter())
    handler.addFilter(Sums(handler))
    root = logging.getLogger()
    root.addHandler(handler)
    set_level(level)
    # Not shown, so not asked for: each costs a call a record.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    return handler
