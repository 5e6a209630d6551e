"""What pydantic finds wrong, in the words of the file that a person edits; secrets are masked before they are shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from agent.config_files import quoted
from agent.config_lines import KeyPath

MASK = "***"
_SECRET = re.compile(r"pass?w|passphrase|secret|token|credential|(^|_)psk($|_)", re.IGNORECASE)
_USERINFO = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*:)?(//)?.*@", re.DOTALL)


def secret(path: KeyPath) -> bool:
    """Whether what stands there may be a secret: anything under a key that speaks of passwords, secrets or tokens."""
    return any(isinstance(part, str) and _SECRET.search(part) for part in path)


def masked_url(text: str) -> str:
    """A URL without its user and password; all else as it is."""
    return _USERINFO.sub(rf"\1\2{MASK}@", text)


def shown(value: Any, path: KeyPath) -> str | None:
    """A value as its file writes it: cut, and masked; None for tables and lists, whose place says enough."""
    if isinstance(value, dict | list):
        return None
    if secret(path):
        return MASK
    if isinstance(value, str):
        return quoted(masked_url(value))
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)[:40]  # a number of 4000 digits is possible


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Which of the known words was meant, if one is near."""
    from difflib import get_close_matches  # 3 ms, needed only for bad news

    plain = {name.lower().replace("-", "_"): name for name in known}
    found = get_close_matches(word.lower().replace("-", "_"), plain, n=1, cutoff=0.6)
    return plain[found[0]] if found else None


def suggestion(word: str, known: Iterable[str]) -> str:
    """``did you mean "urls"?``, or all that would be right."""
    names = list(known)
    near = nearest(word, names)
    return f"did you mean {quoted(near)}?" if near else f"known here: {', '.join(names)}" if names else ""


def explained(
    error: ValidationError, table: Mapping[str, Any], model: type[BaseModel]
) -> Iterator[tuple[KeyPath, str, str]]:
    """(path within table, message, remedy) of each thing that is wrong; one for each path, whatever a union tried."""
    found: dict[KeyPath, dict[tuple[str, str], None]] = {}  # each path's texts, in their order and once
    for detail in error.errors(include_url=False):
        path = _path(detail, table, model)
        if detail["type"] == "extra_forbidden":
            words = "unknown key", _instead(str(path[-1]), _fields(model, path[:-1]), _at(table, path[:-1]))
        elif detail["type"] == "missing" and (field := _fields(model, path[:-1]).get(detail["loc"][-1])):
            words = "missing", field.description or ""
        else:
            words = _words(detail, path, table)
            if detail["type"] not in _MESSAGES or detail["type"] == "value_error":
                path += _mentioned(words[0], _at(table, path))
        found.setdefault(path, {})[words] = None
    for path, all_words in found.items():
        remedies = dict.fromkeys(remedy for _, remedy in all_words if remedy)
        yield path, ", or: ".join(message for message, _ in all_words), ", or: ".join(remedies)


def _path(detail: ErrorDetails, table: Any, model: type[BaseModel]) -> KeyPath:
    """Where in the file: pydantic's location without the names of union members, which no file contains."""
    path: KeyPath = ()
    for part in detail["loc"]:
        inside = part in table if isinstance(table, dict) else isinstance(table, list) and part in range(len(table))
        if inside:
            table = table[part]
            path = (*path, part)
    last = detail["loc"][-1] if detail["loc"] else None
    if isinstance(last, str) and path[-1:] != (last,) and (detail["type"] == "missing" or last in _fields(model, path)):
        path = (*path, last)  # a key that is not there, and should be
    return path


def _at(table: Any, path: KeyPath) -> Any:
    for part in path:
        try:
            table = table[part]
        except (LookupError, TypeError):
            return {}
    return table


def _mentioned(message: str, table: Any) -> KeyPath:
    """The first key of the table that a message about the table as a whole speaks of; () if it is no table."""
    words = re.findall(r"\w+", message) if isinstance(table, dict) else ()
    return next(((word,) for word in words if word in table), ())


def _instead(key: str, known: Mapping[Any, FieldInfo], table: Any) -> str:
    """What to write in place of an unknown key."""
    if secret((key,)) and "password_file" in known:
        return "a password does not stand in this file: name its place with password_file or password_env"
    return suggestion(key, [name for name in known if name not in table])


def _fields(model: Any, path: KeyPath) -> dict[Any, FieldInfo]:
    """Keys that the model at that path knows."""
    models = [model]
    for part in path:
        inner: list[Any] = []
        for item in models:
            known = _keys(item)
            if isinstance(part, str) and part in known:
                inner += _models(known[part].annotation)
            else:
                inner.append(item)  # an index, or a key of a free table: its values' model was found above
        models = inner
    return {name: field for item in models for name, field in _keys(item).items()}


def _keys(model: Any) -> dict[Any, FieldInfo]:
    """Its fields by the names that the file has for them."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "true or false"),
    (str, "text"),
    (int, "a whole number"),
    (float, "a number with a fraction"),
    (list, "a list"),
    (dict, "a table"),
)


def _kind(value: Any) -> str:
    return next((name for kind, name in _KINDS if isinstance(value, kind)), "a date or time")


def _due(what: str) -> Callable[[dict[str, Any]], str]:
    return lambda _: f"{what} is due"


PATTERNS = {
    "^[A-Za-z0-9_-]+$": "may hold only A-Z a-z 0-9 _ -",
    "^[A-Za-z_][A-Za-z0-9_]*$": "may hold only A-Z a-z 0-9 _ and not begin with a digit",
    r"^[^\x00-\x1f\x7f]+$": "may hold only printable characters",
    r"^[^\x00]+$": "may hold only characters other than NUL",
}
"""What the patterns of our models mean."""

_MESSAGES: dict[str, Callable[[dict[str, Any]], str]] = {
    "missing": lambda _: "missing",
    "string_type": _due("text"),
    "path_type": _due("text"),
    "int_type": _due("a whole number"),
    "int_parsing": _due("a whole number"),
    "int_from_float": _due("a whole number"),
    "int_parsing_size": lambda _: "too large",
    "float_type": _due("a number"),
    "float_parsing": _due("a number"),
    "bool_type": _due("true or false"),
    "bool_parsing": _due("true or false"),
    "list_type": _due("a list"),
    "tuple_type": _due("a list"),
    "set_type": _due("a list"),
    "dict_type": _due("a table"),
    "model_type": _due("a table"),
    "model_attributes_type": _due("a table"),
    "literal_error": lambda ctx: f"must be {_choices(ctx)}",
    "enum": lambda ctx: f"must be {_choices(ctx)}",
    "greater_than": lambda ctx: f"must be more than {_plain(ctx['gt'])}",
    "greater_than_equal": lambda ctx: f"must be at least {_plain(ctx['ge'])}",
    "less_than": lambda ctx: f"must be less than {_plain(ctx['lt'])}",
    "less_than_equal": lambda ctx: f"must be at most {_plain(ctx['le'])}",
    "finite_number": lambda _: "must be finite",
    "string_too_short": lambda ctx: (
        "must not be empty" if ctx["min_length"] == 1 else f"needs at least {ctx['min_length']} characters"
    ),
    "string_too_long": lambda ctx: f"must have at most {ctx['max_length']} characters",
    "too_short": lambda ctx: f"needs at least {ctx['min_length']} {'entries' if ctx['min_length'] > 1 else 'entry'}",
    "too_long": lambda ctx: f"must have at most {ctx['max_length']} entries",
    "string_pattern_mismatch": lambda ctx: PATTERNS.get(ctx["pattern"], f"does not match {ctx['pattern']}"),
    "value_error": lambda ctx: str(ctx["error"]),
    "assertion_error": lambda ctx: str(ctx["error"]) or "refused",
}


def _words(detail: ErrorDetails, path: KeyPath, table: Mapping[str, Any]) -> tuple[str, str]:
    value = _at(table, path)
    kind = detail["type"]
    context: dict[str, Any] = detail.get("ctx", {})
    if kind == "missing" and isinstance(detail["loc"][-1], int):
        return f"needs at least {detail['loc'][-1] + 1} entries", ""
    message = _MESSAGES[kind](context) if kind in _MESSAGES else detail["msg"]
    if message.endswith(" is due"):
        message += f", not {_kind(value)}"
    if isinstance(value, str) and value:
        message = message.replace(value, MASK if secret(path) else masked_url(value))
    return message, _remedy(kind, context, path, value)


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)


def _choices(context: dict[str, Any]) -> str:
    return str(context["expected"]).replace("'", '"')


def _remedy(kind: str, context: dict[str, Any], path: KeyPath, value: Any) -> str:
    """What to write instead, where that is plain from the value."""
    expected = kind.split("_")[0]
    form = ""
    if expected in ("string", "path") and isinstance(value, int | float) and not isinstance(value, bool):
        form, value = "put it in quotes", quoted(str(value))
    elif expected in ("list", "tuple", "set") and not isinstance(value, list | dict):
        form, value = "put it in brackets", f"[{shown(value, ())}]"
    elif isinstance(value, str):
        if expected in ("literal", "enum"):
            known = re.findall(r"'([^']*)'|(-?[\d.]+)", str(context["expected"]))
            if near := nearest(value, [name for name, _ in known if name]):
                return f"did you mean {quoted(near)}?"
            form = "write it without quotes" if value in [number for _, number in known] else ""
        elif expected == "bool":
            return "write true or false without quotes"
        elif expected in ("int", "float") and re.fullmatch(r"[+-]?[0-9.]+", value):
            form = "write it without quotes"
    if not form or secret(path):
        return form
    return f"{form}: {path[-1]} = {value}" if isinstance(path[-1], str) else f"{form}: {value}"
