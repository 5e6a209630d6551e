"""Lines of text taken apart into fields: JSON objects, pairs, cells; and a parser made of that. Pure, linear, bounded.

With it go the types of what the configuration says about text: ``Columns``, ``Encoding``, ``Escaped``, ``NamedGroups``.
"""

from __future__ import annotations

import codecs
import csv
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Final, NoReturn, TypeAlias

import orjson
from pydantic import AfterValidator

from agent.fields import FIELDS, FieldError, FieldRules, shown
from agent.fields_pattern import group_names, searcher
from agent.framing import LineFramer
from agent.framing_packets import PacketFramer
from agent.model import Fault, Sample

DEPTH: Final = 8
"""Deepest nesting of a JSON object."""


def json_object(line: bytes) -> dict[str, Any]:
    """The fields of a JSON object (RFC 8259, UTF-8), nested ones flattened: ``{"a":{"b":[7]}}`` gives ``a_b_0``.

    Values are None, bool, int, float or str. NaN and infinity come as text: FieldRules then refuses them by name.
    Raises FieldError of kind "encoding", "syntax", "duplicate_key" or "topic".
    """
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return _not_finite(line, f"not JSON: {error}")
    if found.__class__ is not dict:
        raise FieldError("syntax", "not a JSON object")
    if _FLAT.issuperset(map(type, found.values())):
        flat, keys = found, len(found)
    else:
        flat = {}
        keys = _flatten(found, "", flat, DEPTH)
    # orjson keeps the last of two equal keys. As many colons as keys: there are no two, and no string with a colon.
    # Or as many colons right after a quote, and none after a blank: then a string as "12:30" does not count.
    if line.count(b":") != keys and (line.count(b'":') != keys or _BLANK_COLON.search(line)):
        _decode(line.decode(), "")
    return flat


_FLAT: Final = frozenset({int, float, bool, type(None), str})
_BLANK_COLON: Final = re.compile(rb"[ \t\r\n]:")
# A string, whole or cut off, or a number that JSON does not have, as C and Python print it. Never goes back: linear.
_STRING_OR_NAN: Final = re.compile(r'"(?:[^"\\]|\\.)*+"?|[-+]?\b(?:nan|inf(?:inity)?)\b', re.IGNORECASE | re.DOTALL)


def _not_finite(line: bytes, refused: str) -> dict[str, Any]:
    """What orjson has refused, if NaN and infinity are all that is wrong with it; else why it was refused."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise FieldError("encoding", _not_text(error)) from None
    strange: list[str] = []

    def keep(word: str) -> str:
        strange.append(word)
        return word

    def finite(digits: str) -> float | str:
        value = float(digits)
        return value if math.isfinite(value) else keep(str(value))

    text = _STRING_OR_NAN.sub(lambda m: m[0] if m[0][0] == '"' else "NaN", text)
    found = _decode(text, refused, parse_constant=keep, parse_float=finite)
    if found.__class__ is not dict or not strange:
        raise FieldError("syntax", refused)
    flat: dict[str, Any] = {}
    _flatten(found, "", flat, DEPTH)
    return flat


def _decode(text: str, refused: str, **hooks: Any) -> Any:
    """By the standard library, which is eight times slower, but tells of equal keys and knows NaN."""
    try:
        return json.loads(text, object_pairs_hook=_distinct, **hooks)
    except FieldError:
        raise
    except (ValueError, RecursionError) as error:  # whole numbers of more than 4300 digits; very deep nesting
        raise FieldError("syntax", refused or str(error)) from None


def _distinct(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(items)
    if len(found) != len(items):
        seen: set[str] = set()
        for name, _ in items:
            if name in seen:
                raise FieldError("duplicate_key", f"{shown(name)} stands there twice")
            seen.add(name)
    return found


def _flatten(value: Any, name: str, flat: dict[str, Any], depth: int) -> int:
    """Put what value holds into flat; the number of keys in it and below."""
    inner: Iterable[tuple[Any, Any]]
    if value.__class__ is dict:
        inner, keys = value.items(), len(value)
    elif value.__class__ is list:
        inner, keys = enumerate(value), 0
    else:
        if name in flat:
            raise FieldError("topic", f"two fields are {shown(name)} once flattened")
        if len(flat) == FIELDS:
            raise FieldError("syntax", f"more than {FIELDS} fields in one line")
        flat[name] = value
        return 0
    if not depth:
        raise FieldError("syntax", f"nested deeper than {DEPTH}")
    for key, below in inner:
        keys += _flatten(below, f"{name}_{key}" if name else str(key), flat, depth - 1)
    return keys


def pairs(text: str, delimiter: str | None, assign: str) -> dict[str, str]:
    """The fields of ``a=1 b=2``; delimiter None is any white space. Raises FieldError: "syntax", "duplicate_key"."""
    found: dict[str, str] = {}
    parts = text.split(delimiter)
    if len(parts) > FIELDS:
        raise FieldError("syntax", f"more than {FIELDS} fields in one line")
    for part in parts:
        name, mark, value = part.partition(assign)
        name = name.strip()
        if not mark:
            if not name:  # a delimiter at the end
                continue
            raise FieldError("syntax", f"no {shown(assign)} in {shown(part)}")
        if name in found:
            raise FieldError("duplicate_key", f"{shown(name)} stands there twice")
        found[name] = value
    return found


def cells(text: str, delimiter: str | None) -> list[str]:
    """The cells of a line of CSV (RFC 4180, section 2), quotes taken off; delimiter None is any white space.

    Raises FieldError("syntax") where quotes do not match.
    """
    if '"' not in text or delimiter is None or len(delimiter) > 1:
        return text.split(delimiter)
    try:
        return next(csv.reader([text], delimiter=delimiter, strict=True, skipinitialspace=True))
    except (csv.Error, StopIteration) as error:
        raise FieldError("syntax", f"quotes that do not match: {error}") from None


# ---- lines in a stream


LineFields: TypeAlias = Callable[[bytes], dict[str, Any] | None]
"""The fields of a line by their names on the wire; None if it says nothing. Raises FieldError, UnicodeDecodeError."""


def json_fields(encoding: str = "utf-8") -> LineFields:
    """Of lines that are JSON objects."""
    if encoding == "utf-8":
        return json_object  # orjson takes bytes, and looks whether they are UTF-8
    return lambda line: json_object(line.decode(encoding).encode())


def csv_fields(columns: Sequence[str], delimiter: str | None, encoding: str = "utf-8") -> LineFields:
    """Of lines of CSV with these columns, of which "" are left out. A line of the names themselves is a header."""
    first = next(i for i, name in enumerate(columns) if name)
    due = len(columns)

    def fields(line: bytes) -> dict[str, Any] | None:
        row = cells(line.decode(encoding), delimiter)
        if len(row) != due:
            raise FieldError("columns", f"{len(row)} columns, where {due} are due")
        found = dict(zip(columns, row, strict=True))
        found.pop("", None)
        if row[first].strip() == columns[first] and all(name == cell.strip() for name, cell in found.items()):
            return None
        return found

    return fields


def pair_fields(delimiter: str | None, assign: str, encoding: str = "utf-8") -> LineFields:
    """Of lines such as ``a=1 b=2``."""
    return lambda line: pairs(line.decode(encoding), delimiter, assign)


def group_fields(pattern: str, encoding: str = "utf-8") -> LineFields:
    """Of lines in which a regular expression with named groups is found; a group that took no part gives no field."""
    search = searcher(pattern)

    def fields(line: bytes) -> dict[str, Any]:
        found: dict[str, Any] | None = search(line.decode(encoding))
        if found is None:
            raise FieldError("unmatched", "the pattern does not match")
        return found

    return fields


def whole_line(name: str, encoding: str = "utf-8") -> LineFields:
    """Of lines that are one value."""
    return lambda line: {name: line.decode(encoding)}


class LineReader:
    """A stream of lines to samples and faults: the parser of a driver whose device prints text.

    A line gives one Sample or one Fault; with ``partial`` a Sample of what is good and a Fault for each bad value.
    Lines of white space, and those that begin with one of ``ignore``, are skipped.
    """

    def __init__(
        self,
        framer: LineFramer | PacketFramer,
        fields: LineFields,
        rules: FieldRules,
        *,
        ignore: tuple[bytes, ...] = (),
        skip_first: bool = False,
        partial: bool = False,
    ) -> None:
        self._framer = framer
        self._fields = fields
        self._rules = rules
        self._ignore = ignore
        self._skip_first = skip_first
        self._partial = partial

    def feed(self, data: bytes) -> list[Sample | Fault]:
        """What data completes."""
        lines = self._framer.feed(data)
        if self._skip_first and lines:
            self._skip_first = False
            del lines[0]
        items: list[Sample | Fault] = []
        for line in lines:
            if isinstance(line, Fault):
                items.append(line)
            elif line and not line.isspace() and not line.startswith(self._ignore):
                try:
                    fields = self._fields(line)
                    if fields is not None:
                        if self._partial:
                            items += self._partly(fields, line)
                        else:
                            items.append(Sample(self._rules.apply(fields)))
                except FieldError as error:
                    items.append(Fault(error.kind, error.detail, line))
                except UnicodeDecodeError as error:
                    items.append(Fault("encoding", _not_text(error), line))
        return items

    def end(self) -> list[Fault]:
        """The stream ends: half a line is a Fault("cut")."""
        return self._framer.end()

    def _partly(self, fields: dict[str, Any], line: bytes) -> list[Sample | Fault]:
        good, bad = self._rules.apply_partly(fields)
        faults = [Fault(error.kind, error.detail, line) for error in bad]
        return [Sample(good), *faults] if good else [*faults]


def _not_text(error: UnicodeDecodeError) -> str:
    return f"byte 0x{error.object[error.start]:02x} at {error.start} is not {error.encoding}"


# ---- text with escapes


def unescape(text: str, encoding: str = "utf-8") -> bytes:
    r"""Bytes of a text with the escapes ``\r \n \t \0 \e \\ \xHH``. Raises ValueError at any other."""

    def bad(escape: str) -> NoReturn:
        raise ValueError(rf"unknown escape {escape}; \r \n \t \0 \e \\ and \xHH are known")

    out = bytearray()
    for plain, escape in re.findall(r"([^\\]+)|(\\(?:x[0-9a-fA-F]{2}|.?))", text, re.DOTALL):
        if plain:
            out += plain.encode(encoding)
        elif escape[1:2] == "x" and len(escape) == 4:
            out.append(int(escape[2:], 16))
        else:
            out += _ESCAPES.get(escape) or bad(escape)
    return bytes(out)


_ESCAPES: Final = {"\\r": b"\r", "\\n": b"\n", "\\t": b"\t", "\\0": b"\0", "\\e": b"\x1b", "\\\\": b"\\"}


# ---- what a configuration says about text


def _escaped(text: str) -> str:
    unescape(text)
    return text


def _encoding(name: str) -> str:
    try:
        same = "\r\n,=0".encode(name) == b"\r\n,=0"
    except (LookupError, UnicodeError):
        raise ValueError("Python knows no encoding of text by this name") from None
    if not same:
        raise ValueError("not an extension of ASCII, so that the ends of lines cannot be found")
    return codecs.lookup(name).name


def _columns(names: tuple[str, ...]) -> tuple[str, ...]:
    named = [*filter(None, names)]
    if names and not named:
        raise ValueError("no column has a name")
    if twice := {name for name in named if named.count(name) > 1}:
        raise ValueError(f"named twice: {', '.join(sorted(twice))}")
    return names


def _named_groups(pattern: str) -> str:
    if pattern and not group_names(pattern):
        raise ValueError("no named group in it, as (?P<temperature>[-0-9.]+)")
    return pattern


Escaped: TypeAlias = Annotated[str, AfterValidator(_escaped)]
"""A text that ``unescape`` takes."""

Columns: TypeAlias = Annotated[tuple[str, ...], AfterValidator(_columns)]
"""Names of the cells of a line, all different; "" stands for a cell that is skipped."""

Encoding: TypeAlias = Annotated[str, AfterValidator(_encoding)]
"""Any encoding that Python knows and in which ASCII keeps its bytes, by Python's own name for it."""

NamedGroups: TypeAlias = Annotated[str, AfterValidator(_named_groups)]
"""A regular expression with at least one named group, or nothing."""
