"""The scan for line numbers agrees with tomllib on every document, however it is written."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.config_lines import KeyPath, key_lines

# Characters that mean something to TOML, and a few that do not.
TRICKY = "\"'#[]{}=,.\\ \tßx😀-0"
BARE = "abXY_-01"
LINES = "\n\"'\\#]x="
COMMENTS = ("", "  # note", '\t# [a] = "', "# '''")
GAPS = ("", " ", "\n", "\n  ", ' # ], "\n', "\r\n\n")
PLAIN = ("1", "0x0f", "1_000.5e-3", "-inf", "true", "1979-05-27 07:32:00.5-07:00", "07:32:00", "1979-05-27")


class Writer:
    """Writes a document by the choices that some bytes make, and notes on which line each path begins.

    Bytes, not one draw a choice: twenty times faster, and shrinks as well. When they are used up, every choice is
    the first, and the document ends.
    """

    def __init__(self, choices: bytes) -> None:
        self.choices = iter(choices)
        self.text = ""
        self.lines: dict[KeyPath, int] = {}
        self.names = 0

    def upto(self, most: int) -> int:
        return next(self.choices, 0) % (most + 1)

    def pick(self, options: Sequence[str]) -> str:
        return options[self.upto(len(options) - 1)]

    def some(self, alphabet: str) -> str:
        return "".join(self.pick(alphabet) for _ in range(self.upto(6)))

    def mark(self, path: KeyPath) -> None:
        self.lines.setdefault(path, self.text.count("\n") + 1)

    def key(self) -> str:
        """Write a key that no other is equal to, in one of its three forms."""
        self.names += 1
        style = self.pick(("bare", "basic", "literal"))
        name = f"{self.some(BARE if style == 'bare' else TRICKY)}-{self.names}"
        if style == "literal":
            name = name.replace("'", "")
        self.text += name if style == "bare" else f"'{name}'" if style == "literal" else basic(name)
        return name

    def dotted(self, table: KeyPath) -> KeyPath:
        path = table
        for part in range(1 + self.upto(2)):
            if part:
                self.text += self.pick((".", " . ", "\t."))
            path = (*path, self.key())
            self.mark(path)
        return path

    def pair(self, table: KeyPath, depth: int = 0) -> None:
        path = self.dotted(table)
        self.text += self.pick(("=", " = ", "\t=  "))
        self.value(path, depth)

    def value(self, path: KeyPath, depth: int) -> None:
        kinds = ["plain", "basic", "literal", "long", "long_literal"] + ["array", "inline"] * (depth < 3)
        kind = self.pick(kinds)
        if kind == "plain":
            self.text += self.pick(PLAIN)
        elif kind == "basic":
            self.text += basic(self.some(TRICKY))
        elif kind == "literal":
            self.text += f"'{self.some(TRICKY).replace(chr(39), '')}'"
        elif kind == "long":
            content = self.some(LINES).replace("\\", "\\\\").replace('"""', '""\\"')
            self.text += f'"""{content}"""'
        elif kind == "long_literal":
            self.text += f"'''{self.some(LINES).replace(chr(39) * 3, '')}'''"
        elif kind == "array":
            self.array(path, depth)
        else:
            self.text += "{"
            for number in range(self.upto(2)):
                self.text += ", " if number else " "
                self.pair(path, depth + 1)
            self.text += " }"

    def array(self, path: KeyPath, depth: int) -> None:
        self.text += "[" + self.pick(GAPS)
        count = self.upto(3)
        for index in range(count):
            self.mark((*path, index))
            self.value((*path, index), depth + 1)
            self.text += self.pick(GAPS)
            if index < count - 1 or self.upto(1):
                self.text += "," + self.pick(GAPS)
        self.text += "]"

    def newline(self) -> None:
        self.text += self.pick(COMMENTS) + self.pick(("\n", "\r\n", "\n\n", "\n  \n# x = 1\n\t"))

    def pairs(self, table: KeyPath) -> None:
        for _ in range(self.upto(3)):
            self.pair(table)
            self.newline()

    def header(self, written: list[str], path: KeyPath, array: bool) -> str:
        """``[written.NEW]``; the name of the new one. path: where NEW will be, less its own index."""
        self.text += "[[ " if array else "["
        self.text += "".join(f"{basic(part)}." for part in written)
        name = self.key()
        self.text += "]]" if array else " ]"
        self.mark((*path, name))
        return name

    def document(self) -> str:
        self.pairs(())
        for _ in range(self.upto(3)):
            if self.upto(1):
                name = self.header([], (), array=False)
                self.newline()
                self.pairs((name,))
                if self.upto(1):
                    inner = self.header([name], (name,), array=False)
                    self.newline()
                    self.pairs((name, inner))
            else:
                self.tables([], ())
        return self.text

    def tables(self, written: list[str], path: KeyPath) -> None:
        """An array of tables, in some of its elements tables and arrays of tables."""
        name = self.header(written, path, array=True)
        for index in range(1 + self.upto(2)):
            here = (*path, name, index)
            if index:
                self.text += "[[" + "".join(f"{basic(part)}." for part in written) + basic(name) + "]]"
            self.mark(here)
            self.newline()
            self.pairs(here)
            if self.upto(1):
                inner = self.header([*written, name], here, array=False)
                self.newline()
                self.pairs((*here, inner))
            if len(written) < 2 and self.upto(1):
                self.tables([*written, name], here)


def basic(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t") + '"'


def paths(value: Any, path: KeyPath = ()) -> set[KeyPath]:
    """Every path of what tomllib made of the document."""
    found = {path} if path else set()
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found.union(*(paths(item, (*path, key)) for key, item in items))


# Hypothesis prefers short and plain bytes; most documents worth reading come from long and wild ones.
WILD = st.builds(lambda seed, size: Random(seed).randbytes(size), st.integers(0, 2**32), st.integers(0, 600))


@settings(max_examples=400)
@given(st.binary(max_size=200) | WILD)
def test_every_key_is_found_on_its_line(choices: bytes) -> None:
    writer = Writer(choices)
    text = writer.document()
    lines = key_lines(text)
    assert set(lines) == paths(tomllib.loads(text))
    assert lines == writer.lines


@given(st.text("a=1\n[]{}\"'#.,\\ ", max_size=30) | st.text(max_size=20))
def test_whatever_tomllib_accepts_is_scanned(text: str) -> None:
    try:
        data = tomllib.loads(text)
    except ValueError:
        return
    assert set(key_lines(text)) == paths(data)


def test_what_several_dotted_keys_define_stands_at_the_first() -> None:
    assert key_lines("a.b = 1\na.c = 2\n") == {("a",): 1, ("a", "b"): 1, ("a", "c"): 2}


def test_a_table_named_after_its_subtable_stands_on_its_own_line() -> None:
    assert key_lines("[a.b]\nx = 1\n[a]\ny = 2\n") == {("a",): 3, ("a", "b"): 1, ("a", "b", "x"): 2, ("a", "y"): 4}
