"""What a configuration may say: the keys of a model in plain words for people, and a JSON Schema for editors.

Read from the pydantic models alone, so that `outstation drivers`, `outstation schema` and the pages in docs/ agree.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types as at
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from agent import quantity
from agent.config import RESERVED, SECTIONS
from agent.config_files import quoted
from agent.config_words import PATTERNS
from agent.driver import DeviceConfig
from agent.registry import Registry


@dataclass(frozen=True, slots=True)
class Option:
    """One key. ``default`` is TOML, "required", or "" where there is none or the meaning tells it; the rest, words."""

    key: str
    type: str
    default: str
    unit: str
    meaning: str
    limits: str = ""
    examples: tuple[str, ...] = ()

    @property
    def required(self) -> bool:
        return self.default == "required"


def options(model: type[BaseModel], prefix: str = "") -> Iterator[Option]:
    """The keys of a model in the order of their definition, those of tables within it below their own."""
    # What every device has stands first, though a model inherits it last.
    for name, field in sorted(model.model_fields.items(), key=lambda item: item[0] not in DeviceConfig.model_fields):
        key = prefix + (field.alias or name)
        kind = _Kind(field.annotation, field.metadata)
        extra = field.json_schema_extra
        # Where a validator holds what a Literal cannot: numbers that are not whole.
        choices = extra.get("enum") if isinstance(extra, dict) else None
        yield Option(
            key,
            " | ".join(map(toml, choices)) if isinstance(choices, list) else kind.words,
            _default(field, kind),
            kind.unit,
            field.description or "",
            kind.limits,
            tuple(toml(example) for example in field.examples or ()),
        )
        for path, inner in kind.tables:
            yield from options(inner, f"{key}{path}.")


def driver_options(model: type[BaseModel]) -> Iterator[Option]:
    """The keys of a driver's Config; of ``rules``, which every device may have, the table alone."""
    return (option for option in options(model) if not option.key.startswith("rules."))


def toml(value: Any) -> str:
    """A value as TOML writes it on one line."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | PurePath):
        return quoted(str(value), sys.maxsize)
    if isinstance(value, list | tuple | set | frozenset):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_defaults=True, by_alias=True)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }" if value else "{}"
    return f"{value:g}" if isinstance(value, float) and value.is_integer() and abs(value) < 1e6 else str(value)


class _Kind:
    """An annotation, taken apart."""

    def __init__(self, annotation: Any, metadata: list[Any]) -> None:
        self.unit = ""
        self.limits = ""
        self.quantity: Any = None
        self.tables: list[tuple[str, type[BaseModel]]] = []
        self.words = self._words(annotation, metadata, "")

    def _words(self, annotation: Any, metadata: Any, path: str) -> str:
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            return self._words(arguments[0], [*arguments[1:], *metadata], path)
        for item in metadata:
            if isinstance(item, BeforeValidator) and item.func in _QUANTITIES:
                self.quantity = item.func
                self.unit = _QUANTITIES[item.func][1]
        self.limits = self.limits or _limits(metadata)
        if self.quantity and annotation in (int, float):
            return _QUANTITIES[self.quantity][0]
        if origin is Literal:
            return " | ".join(toml(choice) for choice in arguments)
        if origin in (Union, types.UnionType):
            return " | ".join(dict.fromkeys(self._words(a, (), path) for a in arguments if a is not type(None)))
        if origin is tuple and arguments and arguments[-1] is not Ellipsis:
            return f"[{', '.join(self._words(item, (), path) for item in arguments)}]"
        if origin in (list, tuple, set, frozenset):
            return f"list of {_many(self._words(arguments[0], (), path + '[]'))}"
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return f"table of {_many(self._words(arguments[1], (), path + '.<name>'))}"
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            self.tables.append((path, annotation))
            return "table"
        if isinstance(annotation, type) and issubclass(annotation, Enum):
            return " | ".join(toml(member) for member in annotation)
        return _NAMES.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _many(words: str) -> str:
    return f"{words}s" if words in ("table", "whole number", "number", "path", "duration", "size") else words


_QUANTITIES = {quantity.duration: ("duration", "s"), quantity.size: ("size", "bytes")}
_NAMES: dict[Any, str] = {
    bool: "true | false",
    str: "text",
    int: "whole number",
    float: "number",
    Path: "path",
    Any: "any",
}


def _limits(metadata: Any) -> str:
    bounds: dict[str, Any] = {}
    found = []
    for item in metadata:
        for name, kind in (("ge", at.Ge), ("gt", at.Gt), ("le", at.Le), ("lt", at.Lt)):
            if isinstance(item, kind):
                bounds[name] = getattr(item, name)
        if isinstance(item, at.MaxLen):
            found.append(f"at most {item.max_length} long")
        if meaning := PATTERNS.get(getattr(item, "pattern", None) or ""):
            found.append(meaning.removeprefix("may hold only "))
    if "ge" in bounds and "le" in bounds:
        found.append(f"{bounds['ge']} to {bounds['le']}")
    else:
        words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
        if "ge" in bounds:
            bounds.pop("gt", None)  # an Interval with a floor
        found += [f"{words[name]} {bound}" for name, bound in bounds.items()]
    return ", ".join(found)


def _default(field: FieldInfo, kind: _Kind) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if field.default_factory is not None or value is None or value is PydanticUndefined:
        return ""
    if kind.quantity is quantity.duration:
        return quoted(duration_text(value))
    if kind.quantity is quantity.size:
        return quoted(size_text(value))
    return toml(value)


def duration_text(seconds: float) -> str:
    """As a person writes it: 0.25 -> "250ms", 2592000 -> "30d"."""
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= length and seconds % length == 0 and (unit == "s" or seconds >= 2 * length):
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s" if seconds == 0 or seconds >= 1 else f"{seconds * 1000:g}ms"


def size_text(size: int) -> str:
    """As a person writes it: 256000000 -> "256MB", 131072 -> "128KiB"."""
    for unit, length in (("GB", 10**9), ("GiB", 1 << 30), ("MB", 10**6), ("MiB", 1 << 20), ("kB", 1000), ("KiB", 1024)):
        if size >= length and size % length == 0:
            return f"{size // length}{unit}"
    return f"{size}B"


def schema(registry: Registry) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a configuration with every driver that can be loaded."""
    devices: list[Any] = []
    for entry in registry.entries():
        if entry.cls is not None:
            name: Any = (Literal[entry.name], Field(description=entry.summary or "Name of the driver."))
            devices.append(create_model(f"device-{entry.name}", __base__=entry.cls.Config, driver=name))
    if len(devices) > 1:
        device: Any = Annotated[Union[tuple(devices)], Field(discriminator="driver")]  # noqa: UP007  (made of a list)
    else:
        device = devices[0] if devices else dict[str, Any]
    fields: dict[str, Any] = {
        name: (model, Field(default_factory=model, description=model.__doc__)) for name, model in SECTIONS.items()
    }
    fields["device"] = (list[device], Field(default_factory=list, description="The devices: one [[device]] each."))
    root = create_model(
        "Outstation", __config__=ConfigDict(extra="forbid"), __doc__="Outstation's configuration.", **fields
    )
    result = root.model_json_schema()
    for title, definition in result["$defs"].items():
        if title.startswith("device-"):
            definition["properties"]["name"]["not"] = {"enum": list(RESERVED)}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **result}
