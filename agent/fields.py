"""What becomes of the fields that a device sends: names, types, scales, limits. Pure.

``agent.fields_text`` takes a line apart; ``FieldRules`` makes of its fields what is published. Both raise
``FieldError``, of which a parser makes a ``Fault``. All is bounded: FIELDS in one line, NAMES in one device.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agent.codec import channel_topic
from agent.model import Channel, Value

FIELDS: Final = 256
"""Most fields of one line: a driver with more of them has registers, not lines."""
NAMES: Final = 1024
"""Most names of one device that come from the wire. Past it all are forgotten: only noise makes new names for ever."""
NAME_LENGTH: Final = 128
_PLANS: Final = 64  # layouts of a line (its names in their order) that are remembered

Type: TypeAlias = Literal["auto", "number", "float", "int", "bool", "text"]


class FieldError(ValueError):
    """What came is not what was agreed. Caught by the parser, which makes a Fault of ``kind`` and ``detail`` of it."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


class QuantitySettings(BaseModel):
    """What the configuration may say of a quantity, wherever on the wire it stands: in a line, a frame, a register."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unit: str = Field("", description="Unit after scale and offset, as people write it.")
    scale: float = Field(1.0, allow_inf_nan=False, description="What the value is multiplied by.")
    offset: float = Field(0.0, allow_inf_nan=False, description="What is added after that.")
    low: float | None = Field(None, allow_inf_nan=False, description="Least plausible value; less is a fault.")
    high: float | None = Field(None, allow_inf_nan=False, description="Largest plausible value; more is a fault.")
    device_class: str | None = Field(None, description="Home Assistant's word for the quantity.")
    state_class: str | None = Field(None, description="Home Assistant's word for how it behaves in time.")

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.scale == 0:
            raise ValueError("scale = 0 makes every value the same; leave it out, or give the factor")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low = {self.low:g} is above high = {self.high:g}")
        return self

    @property
    def computes(self) -> bool:
        """Something is done with the value that only a number allows."""
        return (self.scale, self.offset, self.low, self.high) != (1.0, 0.0, None, None)

    def channel(self, name: str) -> Channel:
        """The channel that has it."""
        return Channel(name, self.unit, self.low, self.high, self.device_class, self.state_class)

    def typed(self, kind: Type | None) -> ChannelSettings:
        """The same of a channel that is of this type. Raises ValueError where it is none that can be computed with."""
        return ChannelSettings(type=kind, **{key: getattr(self, key) for key in QuantitySettings.model_fields})


class ChannelSettings(QuantitySettings):
    """What the configuration may say of one channel: ``[device.channels.<its name on the wire>]``."""

    name: str | None = Field(
        None, min_length=1, max_length=NAME_LENGTH, description="Name in readings and topics; default: as on the wire."
    )
    type: Type | None = Field(
        None,
        description='What stands on the wire: "number" (whole or not), "float", "int", "bool" (true/false, on/off, '
        'yes/no, 1/0), "text"; "auto" takes JSON as it is. Default: "number"; in JSON "auto", unless a unit, scale, '
        "offset or limit says that it is a number.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.type in ("bool", "text") and self.computes:
            raise ValueError(f'scale, offset, low and high are for numbers, and this channel is type = "{self.type}"')
        return self

    def kind(self, default: Type) -> Type:
        """What stands on the wire, in a format where the type of an undeclared channel is ``default``."""
        if self.type is None and (self.computes or self.unit):
            return "number"
        return "number" if self.type == "auto" and self.computes else self.type or default

    def channel(self, name: str) -> Channel:
        """The channel that comes under this name on the wire."""
        return super().channel(self.name or name)


_AS_ON_THE_WIRE: Final = ChannelSettings()


# ---- values


def number(text: str) -> int | float:
    """A finite decimal number, whole if it is written so. Raises FieldError("number")."""
    value: int | float
    try:
        value = float(text) if "." in text else int(text)
    except ValueError:
        try:
            value = float(text)  # 1e5; nan and inf, which are refused below
        except ValueError:
            raise FieldError("number", f"not a number: {shown(text)}") from None
    if "_" in text or not text.isascii():  # Python's own additions: 1_000, and digits of other scripts
        raise FieldError("number", f"not a number: {shown(text)}")
    return value if value.__class__ is float and math.isfinite(value) else _finite(value)


def _finite(value: int | float) -> int | float:
    """Also the bounds that JSON readers can rely on and orjson holds: 64 bits, signed or not."""
    if value.__class__ is float:
        if math.isfinite(value):
            return value
        raise FieldError("number", f"not a finite number: {value}")
    if -(2**63) <= value < 2**64:
        return value
    raise FieldError("number", "a whole number of more than 64 bits")


# A decimal number or what C and Python print for one that is none. Possessive, as "1111...x" would else be quadratic.
_NUMERIC: Final = re.compile(
    r"\s*+[-+]?(?:(\d++(?:\.\d*+)?+|\.\d++)(?:e[-+]?\d++)?+|nan|inf(?:inity)?+)\s*+", re.ASCII | re.IGNORECASE
)


def _auto(value: Any) -> Value:
    if value.__class__ is str:
        found = _NUMERIC.fullmatch(value)
        if found is None:
            return str(value)
        if found[1] is None:
            raise FieldError("number", f"not a finite number: {value.strip()}")
        raise FieldError("number", f'a number as text: {shown(value)}; say type = "number" or type = "text"')
    return value if value is None or value.__class__ is bool else _finite(value)


def _number(value: Any) -> Value:
    if value.__class__ is str:
        return number(value)
    if value is None:
        return None  # JSON's null: the device has no value now, and says so
    if value.__class__ is bool:
        raise FieldError("number", f"not a number: {json.dumps(value)}")
    return _finite(value)


def _float(value: Any) -> Value:
    found = _number(value)
    return found if found is None else float(found)


def _int(value: Any) -> Value:
    found = _number(value)
    if isinstance(found, float):
        if not found.is_integer():
            raise FieldError("number", f"not a whole number: {found}")
        return _finite(int(found))
    return found


_WORDS: Final = {
    "true": True,
    "on": True,
    "yes": True,
    "1": True,
    "false": False,
    "off": False,
    "no": False,
    "0": False,
}


def _bool(value: Any) -> Value:
    if value is None or value.__class__ is bool:
        return value
    word = str(value).strip().lower()
    if word not in _WORDS:
        raise FieldError("number", f"neither true nor false: {shown(word)}")
    return _WORDS[word]


def _text(value: Any) -> Value:
    if value.__class__ is str:
        return value.strip()
    return value if value is None else json.dumps(value)


_TYPES: Final[Mapping[Type, Callable[[Any], Value]]] = {
    "auto": _auto,
    "number": _number,
    "float": _float,
    "int": _int,
    "bool": _bool,
    "text": _text,
}


def _converter(settings: ChannelSettings, default: Type) -> Callable[[Any], Value]:
    """From what stands on the wire to what is published, for one channel."""
    convert = _TYPES[settings.kind(default)]
    if convert is _number and default != "auto":
        convert = number  # text formats give nothing but text: one call less for every value
    if not settings.computes:
        return convert
    scale, offset, unit = settings.scale, settings.offset, settings.unit and f" {settings.unit}"
    low = -math.inf if settings.low is None else settings.low
    high = math.inf if settings.high is None else settings.high
    scales = (scale, offset) != (1.0, 0.0)

    def computed(raw: Any) -> Value:
        value: Any = convert(raw)
        if value is None:
            return None
        if scales:
            # 15 digits are what a double holds for sure: 3 * 0.1 is 0.3 then, not 0.30000000000000004.
            value = _finite(float(f"{value * scale + offset:.15g}"))
        if not low <= value <= high:
            limit = f"below {low:g}" if value < low else f"above {high:g}"
            raise FieldError("range", f"{value:g}{unit} is {limit}{unit}")
        return value  # type: ignore[no-any-return]

    return computed


def shown(text: str) -> str:
    """A word from the wire as an error shows it: quoted, cut at 32 characters, nothing in it that a terminal obeys."""
    text = text if len(text) <= 32 else text[:32] + "..."
    quoted = json.dumps(text, ensure_ascii=False)
    return quoted if quoted.isprintable() else json.dumps(text).replace("\x7f", "\\u007f")


# ---- names


class FieldRules:
    """What becomes of the fields of a line: names, types, scales, limits, and that no two share a topic."""

    _PLAIN: Final = frozenset({int, float, bool, type(None)})

    def __init__(self, channels: Mapping[str, ChannelSettings], *, default: Type, others: bool = True) -> None:
        """channels by their name on the wire; default: type of a channel without one; others: keep undeclared channels.

        Raises ValueError where two of the channels would share a topic.
        """
        self._channels = channels
        self._default: Type = default
        self._others = others
        self._plans: dict[tuple[str, ...], list[tuple[str, str, Callable[[Any], Value]]] | None] = {}
        self._owners: dict[str, str] = {}  # topic -> name on the wire
        self._declare()

    def __getstate__(self) -> dict[str, Any]:
        """Into another process go the names that were learnt; plans hold functions, and are made anew."""
        return {**self.__dict__, "_plans": {}}

    def _declare(self) -> None:
        self._owners.clear()
        self._plans.clear()
        for wire in self._channels:
            self._claim(wire)

    def apply(self, raw: dict[str, Any]) -> dict[str, Value]:
        """The published fields of a line, in its order. Raises FieldError, which names the first that is wrong."""
        names = tuple(raw)
        try:
            plan = self._plans[names]
        except KeyError:
            plan = self._plan(names)
        if plan is None:
            if self._PLAIN.issuperset(map(type, raw.values())):
                return raw
            plan = [(wire, wire, _auto) for wire in names]
        try:
            return {name: convert(raw[wire]) for wire, name, convert in plan}
        except FieldError:
            _, (bad, *_) = self._sorted(plan, raw)
            raise bad from None

    def apply_partly(self, raw: dict[str, Any]) -> tuple[dict[str, Value], list[FieldError]]:
        """What can be published of a line, and what is wrong with the rest. Raises FieldError for a whole line."""
        names = tuple(raw)
        plan = self._plans[names] if names in self._plans else self._plan(names)
        return self._sorted([(wire, wire, _auto) for wire in names] if plan is None else plan, raw)

    def _sorted(
        self, plan: Iterable[tuple[str, str, Callable[[Any], Value]]], raw: dict[str, Any]
    ) -> tuple[dict[str, Value], list[FieldError]]:
        good: dict[str, Value] = {}
        bad: list[FieldError] = []
        for wire, name, convert in plan:
            try:
                good[name] = convert(raw[wire])
            except FieldError as error:
                bad.append(FieldError(error.kind, f"{wire if wire.isprintable() else shown(wire)}: {error.detail}"))
        return good, bad

    def _plan(self, names: tuple[str, ...]) -> list[tuple[str, str, Callable[[Any], Value]]] | None:
        """How a line with these names is to be read; None: as it is, unless there is text in it."""
        if len(names) > FIELDS:
            raise FieldError("syntax", f"more than {FIELDS} fields in one line")
        if len(self._owners) + len(names) > NAMES + len(self._channels) or len(self._plans) >= _PLANS:
            self._declare()
        plan = []
        as_it_is = self._default == "auto"
        for wire in names:
            settings = self._channels.get(wire)
            if settings is None:
                if not self._others:
                    as_it_is = False
                    continue
                settings = _AS_ON_THE_WIRE
            elif settings.name not in (None, wire) or settings.kind(self._default) != "auto":
                as_it_is = False
            self._claim(wire)
            plan.append((wire, settings.name or wire, _converter(settings, self._default)))
        if not plan:
            raise FieldError("syntax", "no field in it" if self._others else "no declared channel in it")
        self._plans[names] = None if as_it_is else plan
        return self._plans[names]

    def _claim(self, wire: str) -> None:
        settings = self._channels.get(wire, _AS_ON_THE_WIRE)
        name = settings.name or wire
        if not name or len(name) > NAME_LENGTH:
            raise FieldError("syntax", f"a name of 1 to {NAME_LENGTH} characters is due: {shown(name)}")
        topic = channel_topic(name)
        owner = self._owners.setdefault(topic, wire)
        if owner != wire:
            raise FieldError("topic", f"channels {shown(owner)} and {shown(wire)} share the topic {topic}")
