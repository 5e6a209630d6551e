"""Log lines as this agent writes them: ``noun.verb key=value``, and which of many equal ones are worth printing."""

from __future__ import annotations

import re
import sys
from collections.abc import Hashable

_EVENT = re.compile(r"[a-z]+\.[a-z_]+(?= |$)")
_FIELD = re.compile(r' (\w+)=("(?:[^"\\]|\\.)*"|\S+)')
_ESCAPE = re.compile(r"\\(?:u([0-9a-f]{4})|U([0-9a-f]{8})|(.))")


def line(event: str, /, **fields: object) -> str:
    """``device.lost device=weather reason="hung up"``: values with blanks, quotes or "=" quoted; None left out.

    What is not printable is escaped: values may come from a device or a broker, and people read logs in terminals.
    Double quotes become single ones, which are easier to read; in bytes, which are evidence, they stay and are escaped.
    """
    parts = [event]
    for key, value in fields.items():
        if value is not None:
            text = f"{value:.6g}" if isinstance(value, float) else str(value)
            if not text or any(c in text for c in ' "=') or not text.isprintable():
                text = text.replace("\\", "\\\\").replace('"', '\\"' if isinstance(value, bytes) else "'")
                if not text.isprintable():
                    text = "".join(c if c.isprintable() else _escaped(c) for c in text)
                text = f'"{text}"'
            parts.append(f"{key}={text}")
    return " ".join(parts)


def fields(text: str) -> tuple[str, dict[str, str]] | None:
    """What ``line`` was given: event and fields, all of them text; None where the text is no such line."""
    match = _EVENT.match(text)
    if match is None:
        return None
    found: dict[str, str] = {}
    at = match.end()
    while field := _FIELD.match(text, at):
        value = field[2]
        if value[0] == '"':
            value = _ESCAPE.sub(_unescaped, value[1:-1])
        found[field[1]] = value
        at = field.end()
    return (match[0], found) if at == len(text) else None


def _escaped(character: str) -> str:
    code = ord(character)
    return "\\n" if character == "\n" else f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _unescaped(escape: re.Match[str]) -> str:
    code = escape[1] or escape[2]
    if code:
        return chr(int(code, 16)) if int(code, 16) <= sys.maxunicode else escape[0]
    return "\n" if escape[3] == "n" else escape[3]


class Repeats:
    """Counts occurrences by key: the 1st, 2nd, 4th, 8th ... is worth a line, and a sum when it is over.

    At most ``limit`` keys are kept; past that the oldest is forgotten.
    """

    def __init__(self, limit: int = 256) -> None:
        self._counts: dict[Hashable, int] = {}
        self._limit = limit

    def __call__(self, key: Hashable) -> int:
        """Count one more. Returns how often it was seen where this one is worth a line (a power of two), else 0."""
        count = self._counts.get(key, 0) + 1
        if count == 1 and len(self._counts) >= self._limit:
            del self._counts[next(iter(self._counts))]
        self._counts[key] = count
        return 0 if count & (count - 1) else count

    def over(self, key: Hashable) -> int:
        """It is over: how often it was seen in all. The next occurrence is a first one again."""
        return self._counts.pop(key, 0)
