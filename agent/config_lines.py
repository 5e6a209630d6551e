"""Where each key of a TOML document stands. tomllib gives values and no line numbers, so this is a scan of our own.

It reads only documents that tomllib has accepted, and therefore checks nothing: it looks for keys, skips values, and
counts. Grammar: TOML 1.0; newlines and a trailing comma inside an inline table (TOML 1.1) do no harm.
"""

from __future__ import annotations

import re
import tomllib
from typing import TypeAlias

KeyPath: TypeAlias = "tuple[str | int, ...]"
"""Keys and indices from the root: ("device", 0, "port")."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_STRING = r'"(?:[^"\\\n]|\\.)*"' + r"|'[^'\n]*'"
_KEY = re.compile(rf"[A-Za-z0-9_-]+|{_STRING}")
# A multi-line string ends at its first three quotes, but up to two more may belong to its content (TOML 1.0, "String").
_TEXT = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*"""' + r'"{0,2}' + r"|'''(?:[^']|'(?!''))*'''" + r"'{0,2}" + rf"|{_STRING}",
    re.DOTALL,
)
_PLAIN = re.compile(r"[^,\]}#\r\n]*")  # numbers, booleans and dates; a date may hold a space


def key_lines(text: str) -> dict[KeyPath, int]:
    """Line, counted from 1, of every key, table and array element of a document that ``tomllib.loads`` accepts."""
    return _Scan(text).document()


class _Scan:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.line = 1
        self.lines: dict[KeyPath, int] = {}
        self.counts: dict[KeyPath, int] = {}  # how many tables each array of tables has so far

    def document(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while True:
            self.skip(_BLANK)
            if self.at == len(self.text):
                return self.lines
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.key_value(table)

    def header(self) -> KeyPath:
        """``[a.b]`` or ``[[a.b]]``; the path of the table that it opens."""
        array = self.text.startswith("[[", self.at)
        self.at += 2 if array else 1
        self.skip(_SPACE)
        *parents, last = self.keys()
        self.at += 2 if array else 1
        path: KeyPath = ()
        for key in parents:
            path = self.inside((*path, key))
            self.lines.setdefault(path, self.line)
        path = (*path, last)
        if array:
            self.lines.setdefault(path, self.line)
            self.counts[path] = self.counts.get(path, 0) + 1
            path = self.inside(path)
        self.lines[path] = self.line
        return path

    def inside(self, path: KeyPath) -> KeyPath:
        """A header that passes through an array of tables means the latest of them."""
        count = self.counts.get(path)
        return path if count is None else (*path, count - 1)

    def key_value(self, table: KeyPath) -> None:
        path = table
        for key in self.keys():
            path = (*path, key)
            self.lines.setdefault(path, self.line)
        self.at += 1  # the "="
        self.skip(_SPACE)
        self.value(path)

    def keys(self) -> list[str]:
        """A dotted key, up to the "=" or "]" behind it."""
        found = []
        while match := _KEY.match(self.text, self.at):
            found.append(_plain(match[0]))
            self.at = match.end()
            self.skip(_SPACE)
            if not self.text.startswith(".", self.at):
                break
            self.at += 1
            self.skip(_SPACE)
        return found

    def value(self, path: KeyPath) -> None:
        first = self.text[self.at]
        if first == "[":
            self.items(path, "]")
        elif first == "{":
            self.items(path, "}")
        else:
            self.skip(_TEXT if first in "\"'" else _PLAIN)

    def items(self, path: KeyPath, end: str) -> None:
        """The elements of an array, or the pairs of an inline table."""
        self.at += 1
        index = 0
        while True:
            self.skip(_BLANK)
            if self.text[self.at] == end:
                self.at += 1
                return
            if self.text[self.at] == ",":
                self.at += 1
            elif end == "}":
                self.key_value(path)
            else:
                self.lines[(*path, index)] = self.line
                self.value((*path, index))
                index += 1

    def skip(self, what: re.Pattern[str]) -> None:
        if match := what.match(self.text, self.at):
            self.line += self.text.count("\n", self.at, match.end())
            self.at = match.end()


def _plain(key: str) -> str:
    """A key without its quotes and escapes."""
    return next(iter(tomllib.loads(f"{key} = 0"))) if key[0] in "\"'" else key
