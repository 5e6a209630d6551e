"""The configuration's files: one main file, drop-ins beside it, and where each key of the whole came from.

Files are read in order: the main file, then ``outstation.d/*.toml`` beside it, by name. Tables merge, ``[[device]]``
lists are joined. Any other key that stands in two files takes the value of the later one, as with systemd's drop-ins;
``outstation check`` says so. A base file for a fleet, and beside it the few lines that make a board what it is.
"""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from agent.config_lines import KeyPath, key_lines
from agent.errors import Problem

DEFAULT_FILE = "/etc/outstation/outstation.toml"
DROP_INS = "outstation.d"
LONGEST = 4 << 20  # bytes: a thousand devices take 300 kB; `-c /dev/zero` must end too
DEEPEST = 32  # levels; every model of ours has at most five
_DEEP = f"tables or arrays nested more than {DEEPEST} levels deep"


class Place(NamedTuple):
    """A line of a file; line None: the file as a whole."""

    file: str
    line: int | None


@dataclass
class Merged:
    """All files as one document.

    overridden: (key, the place that lost, the place that counts); problems: keys that are a table here, a value there.
    """

    data: dict[str, Any] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    places: dict[KeyPath, Place] = field(default_factory=dict)
    overridden: list[tuple[str, Place, Place]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def place(self, path: KeyPath) -> Place:
        """Where that key stands, or the nearest table or array around it."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path) or Place(self.files[0], None)

    def add(self, file: str, data: dict[str, Any], lines: dict[KeyPath, int]) -> None:
        """Merge one more file."""
        self.files.append(file)
        self._merge(self.data, data, (), file, lines)

    def amend(self, file: str, data: dict[str, Any], lines: dict[KeyPath, int]) -> None:
        """As ``add``, but a ``[[device]]`` whose name is there already changes that device, key by key."""
        self.files.append(file)
        old, new = self.data.get("device"), data.get("device")
        known = {
            table["name"]: index
            for index, table in enumerate(old if isinstance(old, list) else ())
            if isinstance(table, dict) and isinstance(table.get("name"), str)
        }
        fresh: list[Any] = []
        moved = {path: line for path, line in lines.items() if path[:1] != ("device",) or len(path) < 2}
        for index, table in enumerate(new if isinstance(new, list) else ()):
            name = table.get("name") if isinstance(table, dict) else None
            at = known.get(name) if isinstance(name, str) else None
            # Where its keys are going to stand: in the device of that name, or in the list of the new ones.
            place = len(fresh) if at is None else at
            here = {("device", place, *path[2:]): line for path, line in lines.items() if path[:2] == ("device", index)}
            if at is None:
                fresh.append(table)
                moved.update(here)
            else:
                changes = {key: value for key, value in table.items() if key != "name"}
                self._merge(self.data["device"][at], changes, ("device", at), file, here)
        if isinstance(new, list):
            data = {key: value for key, value in data.items() if key != "device"} | ({"device": fresh} if fresh else {})
        self._merge(self.data, data, (), file, moved)

    def _merge(
        self, into: dict[str, Any], new: dict[str, Any], path: KeyPath, file: str, lines: dict[KeyPath, int]
    ) -> None:
        for key, value in new.items():
            here = (*path, key)
            place = Place(file, lines[here])
            old = into.get(key)
            if isinstance(old, dict) and isinstance(value, dict):
                self._merge(old, value, here, file, lines)
            elif here == ("device",) and isinstance(old, list) and isinstance(value, list):
                self._take(here, file, lines, first=len(old))
                old.extend(value)
            elif key in into and (isinstance(old, dict) or isinstance(value, dict)):
                words = {True: "a table", False: "a value"}
                was = self.place(here)
                message = (
                    f"{words[isinstance(value, dict)]} here, {words[isinstance(old, dict)]} at {was.file}:{was.line}"
                )
                self.problems.append(Problem(*place, key_text(here), None, message, "use one form in both files"))
            else:
                if key in into:
                    self.overridden.append((key_text(here), self.place(here), place))
                into[key] = value
                self.places[here] = place
                self._take(here, file, lines)

    def _take(self, path: KeyPath, file: str, lines: dict[KeyPath, int], first: int = 0) -> None:
        """Note the places of everything below path; ``first``: what index 0 of a list becomes in the whole."""
        for old, line in lines.items():
            if len(old) > len(path) and old[: len(path)] == path:
                index = old[len(path)]
                new = (*path, index + first, *old[len(path) + 1 :]) if first and isinstance(index, int) else old
                self.places[new] = Place(file, line)


def read(path: str) -> tuple[Merged, list[Problem]]:
    """The main file and its drop-ins; and what cannot be read, or is not TOML."""
    merged = Merged()
    problems: list[Problem] = []
    drop_ins, unreadable = _drop_ins(path)
    problems += unreadable
    for file in [path, *drop_ins]:
        text = _text(file)
        if isinstance(text, Problem):
            problems.append(text)
            continue
        parsed = parse(file, text)
        if isinstance(parsed, Problem):
            problems.append(parsed)
        else:
            merged.add(file, *parsed)
    return merged, problems


def parse(file: str, text: str) -> tuple[dict[str, Any], dict[KeyPath, int]] | Problem:
    """A TOML document and the line of each of its keys, or why it is none. file: its name in messages."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return _syntax(file, text, error)
    except ValueError:  # CPython's sys.set_int_max_str_digits
        return _whole(file, "a number of over 4300 digits", "nothing here needs that")
    except RecursionError:
        return _whole(file, _DEEP, "nothing here needs that")
    if _deeper(data, DEEPEST):
        return _whole(file, _DEEP, "nothing here needs that")
    return data, key_lines(text)


def key_text(path: KeyPath) -> str:
    """A key path as a person writes it: ``mqtt.urls[0]``; keys that are not bare are quoted."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else quoted(part))
    return text


_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def quoted(text: str, longest: int = 120) -> str:
    """A TOML basic string of one line, cut at so many characters."""
    text = text if len(text) <= longest else text[: longest - 3] + "..."
    return '"' + "".join(_ESCAPES.get(c) or (c if c.isprintable() else f"\\U{ord(c):08X}") for c in text) + '"'


def _drop_ins(path: str) -> tuple[list[str], list[Problem]]:
    directory = os.path.join(os.path.dirname(path), DROP_INS)
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(".toml") and not name.startswith("."))
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [_unreadable(directory, error)]
    return [os.path.join(directory, name) for name in names], []


def _text(file: str) -> str | Problem:
    try:
        with open(file, "rb") as stream:
            data = stream.read(LONGEST + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        return _unreadable(file, error)
    if len(data) > LONGEST:
        return _whole(file, f"longer than {LONGEST >> 20} MiB", "is it the right file?")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _whole(file, "the text is UTF-16", "save it as UTF-8")
    try:
        return data.decode("utf-8-sig")  # a byte order mark at the start, as some editors write it, does no harm
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"byte 0x{data[error.start]:02x} is not UTF-8"
        return Problem(file, line, "", None, message, "save the file as UTF-8")


def _unreadable(file: str, error: OSError | ValueError) -> Problem:
    if isinstance(error, FileNotFoundError):
        return _whole(
            file,
            "no such file",
            f"name another with -c FILE, or have `outstation init -o {file}` write it",
        )
    if isinstance(error, IsADirectoryError):
        return _whole(file, "a directory, not a file", f"name the file itself; drop-ins go to {DROP_INS}/ beside it")
    if isinstance(error, PermissionError):
        return _whole(
            file, "no permission to read it", f"{_owner(file)}; run as that user or group, or change its mode"
        )
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return _whole(file, f"cannot be read: {reason}", "")


def _owner(file: str) -> str:
    """Whom the file belongs to, as far as we may look."""
    try:
        status = os.stat(file)
    except OSError:
        return "a directory on the way to it is closed to this user"
    return f"its owner is uid {status.st_uid}, gid {status.st_gid}, its mode {status.st_mode & 0o7777:04o}"


_WHERE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_REMEDIES = (
    ("Cannot overwrite a value", "the key is there twice: remove one"),
    ("Cannot declare", "the table is there twice: join them, or write [[...]] for one of several"),
    ("Cannot mutate immutable", "an inline table or array is complete as it stands: add to it inside its brackets"),
    ("Cannot redefine namespace", "the same name stands for a table and a value: rename one"),
    ("Expected '=' after a key", 'write: key = "value"'),
    ("Expected ']", "close the bracket of the table's name"),
    ("Unclosed array", "an array lacks its closing ]"),
    ("Unclosed inline table", "an inline table lacks its closing }"),
    ("Illegal character '\\n'", "a string lacks its closing quote on this line"),
    ("Unterminated string", "a string lacks its closing quotes"),
    ("Unescaped '\\' in a string", r"write \\ for a backslash, or put the text in single quotes"),
    ("Invalid value", 'text stands in quotes ("..."), true and false in lower case, numbers bare'),
    ("Invalid initial character for a key part", "a key is of A-Z a-z 0-9 _ -, or in quotes"),
    ("Expected newline or end of document after a statement", "one key = value a line; text stands in quotes"),
    ("Invalid statement", "a line is: key = value, [table], [[table]] or # comment"),
)


def _syntax(file: str, text: str, error: tomllib.TOMLDecodeError) -> Problem:
    # CPython 3.14 has error.lineno; up to then place and reason are in the text alone. No text of the file is shown: it
    # may hold a password.
    reason = str(error)
    line = None
    if match := _WHERE.search(reason):
        reason = reason[: match.start()]
        line = int(match[1]) if match[1] else text.rstrip().count("\n") + 1  # "at end of document"
        reason += f" (column {match[2]})" if match[2] else " (where the file ends)"
    remedy = next((remedy for start, remedy in _REMEDIES if reason.startswith(start)), "see toml.io")
    return Problem(file, line, "", None, f"not TOML: {reason}", remedy)


def _whole(file: str, message: str, remedy: str) -> Problem:
    return Problem(file, None, "", None, message, remedy)


def _deeper(value: Any, levels: int) -> bool:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(levels == 0 or _deeper(item, levels - 1) for item in items)
