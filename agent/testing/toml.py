"""A configuration as TOML text, from the dict that a test gives: the standard library reads TOML, but writes none."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def dumps(table: Mapping[str, Any]) -> str:
    """TOML 1.0 of nested mappings, lists, strings, paths, numbers and booleans. Raises TypeError for anything else.

    A value of None leaves its key out: TOML has no null.
    """
    return "\n".join(_lines(table, ())) + "\n"


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    lines: list[str] = []
    for key, value in table.items():  # plain keys first: after a [header] they would belong to it
        if value is not None and not _is_table(value) and not _is_tables(value):
            lines.append(f"{_key(key)} = {literal(value)}")
    for key, value in table.items():
        header = ".".join(map(_key, (*path, key)))
        if _is_table(value):
            lines += [f"[{header}]", *_lines(value, (*path, key))]
        elif _is_tables(value):
            for item in value:
                lines += [f"[[{header}]]", *_lines(item, (*path, key))]
    return lines


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_tables(value: Any) -> bool:
    return _is_list(value) and len(value) > 0 and all(map(_is_table, value))


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else literal(key)


def literal(value: Any) -> str:
    """One value, in one line: ``"text"``, ``true``, ``[1, 2]``. Raises TypeError."""
    if isinstance(value, PurePath):
        value = str(value)
    if isinstance(value, str):
        # A TOML basic string is a JSON string, but for DEL and the surrogates' escapes, which ensure_ascii would make.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if _is_table(value):
        return "{" + ", ".join(f"{_key(k)} = {literal(v)}" for k, v in value.items() if v is not None) + "}"
    if _is_list(value):
        return "[" + ", ".join(map(literal, value)) + "]"
    raise TypeError(f"TOML has no {type(value).__name__}: {value!r}")
