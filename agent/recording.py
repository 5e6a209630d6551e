"""Recordings: what went over a port, and when, as JSON Lines. Pure; docs/decisions/048 has the form and its reasons.

The first line says what was recorded: ``{"recording": 1, "taken": RFC 3339, "device": {its table}}``. Each other line
is something that happened ``t`` seconds after the first opening: ``rx`` (the device sent) or ``tx`` (the driver wrote)
with the bytes as text where all are printable ASCII, tabs, CR and LF, else ``rx_hex`` or ``tx_hex``; or
``"event": "opened"`` or ``"lost"``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

VERSION: Final = 1
LONGEST: Final = 1 << 20
"""Characters of a line: five times what one read of 64 KiB takes as hex."""

Kind: TypeAlias = Literal["rx", "tx", "opened", "lost"]

_TEXT: Final = re.compile(rb"[\t\n\r -~]*")


class RecordingError(ValueError):
    """A file that is no recording, or is damaged; says where. Caught by the command: exit status 65."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that happened. t: seconds since the first opening; data: of ``rx`` and ``tx``."""

    t: float
    kind: Kind
    data: bytes = b""


def header(device: dict[str, Any], taken: str) -> str:
    """The first line. taken: RFC 3339."""
    return json.dumps({"recording": VERSION, "taken": taken, "device": device}, ensure_ascii=False) + "\n"


def line(entry: Entry) -> str:
    """One entry, to the microsecond."""
    t = round(entry.t, 6)
    if entry.kind in ("opened", "lost"):
        return json.dumps({"t": t, "event": entry.kind}) + "\n"
    if _TEXT.fullmatch(entry.data):
        return json.dumps({"t": t, entry.kind: entry.data.decode("ascii")}) + "\n"
    return json.dumps({"t": t, f"{entry.kind}_hex": entry.data.hex()}) + "\n"


def read_header(text: str) -> dict[str, Any]:
    """The device's table. Raises RecordingError."""
    said = _object(text, 1)
    if said.get("recording") != VERSION or not isinstance(said.get("device"), dict):
        version = said.get("recording")
        raise RecordingError(
            f"a recording of version {version}, and this program reads {VERSION}"
            if isinstance(version, int) and version != VERSION
            else 'line 1: no recording: it begins with {"recording": 1, ...}'
        )
    device: dict[str, Any] = said["device"]
    return device


def read_entries(lines: Iterable[str]) -> Iterator[Entry]:
    """The entries of the lines after the first. Raises RecordingError, with the line's number.

    A last line that was cut, as a killed recorder leaves it, ends the recording.
    """
    last = 0.0
    for number, text in enumerate(lines, 2):
        if len(text) >= LONGEST:
            raise RecordingError(f"line {number} is longer than {LONGEST} characters")
        if not text.endswith("\n"):
            return
        if text.strip():
            entry = _entry(_object(text, number), number)
            if entry.t < last:
                raise RecordingError(f"line {number}: t = {entry.t} is before the line above")
            last = entry.t
            yield entry


def _entry(said: dict[str, Any], number: int) -> Entry:
    t = said.get("t")
    if isinstance(t, bool) or not isinstance(t, int | float) or not 0 <= t < 1e9:
        raise RecordingError(f"line {number}: t has to be seconds, not {t!r}")
    event = said.get("event")
    if event in ("opened", "lost"):
        return Entry(t, event)
    try:
        for kind in ("rx", "tx"):
            if kind in said:
                return Entry(t, kind, said[kind].encode("ascii"))
            if f"{kind}_hex" in said:
                return Entry(t, kind, bytes.fromhex(said[f"{kind}_hex"]))
    except (AttributeError, TypeError, ValueError) as error:
        raise RecordingError(f"line {number}: {error}") from error
    raise RecordingError(f"line {number}: neither rx, tx nor a known event")


def _object(text: str, number: int) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except ValueError as error:
        raise RecordingError(f"line {number}: no JSON: {error}") from error
    if not isinstance(said, dict):
        raise RecordingError(f"line {number}: no JSON object")
    return said
