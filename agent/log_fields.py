"""Log lines as fields: JSON Lines, and the journal's own protocol. Imported where one of them is wanted.

Source: systemd, "Native Journal Protocol"; systemd.journal-fields(7).
"""

from __future__ import annotations

import logging
import re
import socket
from pathlib import Path
from typing import Any

import orjson

from agent.log_text import masked, priority, timestamp
from agent.logline import fields


class JsonFormatter(logging.Formatter):
    """``{"ts":...,"level":"warning","event":"link.lost","fields":{...},"text":...}``, one object a line.

    event and fields are absent where a text is none of ours; a traceback stands in "traceback".
    """

    def format(self, record: logging.LogRecord) -> str:
        said = _told(self, record)
        said = {"ts": timestamp(record), "level": record.levelname.lower(), "logger": record.name, **said}
        return orjson.dumps(said).decode()


class JournalHandler(logging.Handler):
    """Sends records to journald with their fields: ``journalctl OUTSTATION_DEVICE=weather``.

    fallback: takes what the journal does not: a record larger than a datagram, or all while its queue is full.
    """

    def __init__(self, path: Path, fallback: logging.Handler) -> None:
        super().__init__()
        self._path = str(path)
        self._fallback = fallback
        self._formatter = logging.Formatter()
        self._socket: socket.socket | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._socket.sendto(entry(record, self._formatter), self._path)
        except OSError:  # full, too large, or restarting: its stream is held by systemd meanwhile
            self._fallback.handle(record)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        super().close()


def entry(record: logging.LogRecord, formatter: logging.Formatter) -> bytes:
    """One record in the journal's form: ``KEY=value`` a line; what has line breaks by its length instead."""
    said = _told(formatter, record)
    text = "\n".join(filter(None, (said["text"], said.get("traceback"))))
    table = {
        "MESSAGE": text,
        "PRIORITY": str(priority(record.levelno)),
        "SYSLOG_IDENTIFIER": "outstation",
        "OUTSTATION_LOGGER": record.name,
    }
    if "event" in said:
        table["OUTSTATION_EVENT"] = said["event"]
        for key, value in said["fields"].items():
            table[re.sub("[^A-Z0-9_]", "_", f"OUTSTATION_{key.upper()}")[:64]] = value
    parts = []
    for key, value in table.items():
        octets = value.encode("utf-8", "replace")
        if b"\n" in octets:
            parts.append(key.encode() + b"\n" + len(octets).to_bytes(8, "little") + octets + b"\n")
        else:
            parts.append(key.encode() + b"=" + octets + b"\n")
    return b"".join(parts)


def _told(formatter: logging.Formatter, record: logging.LogRecord) -> dict[str, Any]:
    text = masked(record.getMessage()).encode("utf-8", "replace").decode()
    said: dict[str, Any] = {}
    if (parts := fields(text)) is not None:
        said["event"], said["fields"] = parts
    said["text"] = text
    if record.exc_info:
        said["traceback"] = masked(formatter.formatException(record.exc_info)).encode("utf-8", "replace").decode()
    return said
