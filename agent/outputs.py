"""What may be set on a device, and what a command says: pure, no I/O.

A command is the payload of ``outstation/<agent>/<device>/<channel>/set``: the bare value (``on``, ``21.5``, any text),
or a JSON object ``{"value": ..., "transaction": ...}`` whose transaction comes back in the answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import orjson

from agent.model import Value

LONGEST = 4096
"""Bytes of a command: no output takes more, and what is longer was meant for somebody else."""

_TRANSACTION = 256  # bytes of JSON: four times the UUIDs that programs use
_WORDS = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class Output:
    """One channel of a device that may be set.

    kind: what a new value has to be. A switch takes on and off; a number one within low..high (in ``unit``, both
    inclusive; whole: without a fraction); text has at most ``longest`` characters, and is one of ``choices`` if there
    are any; a button is pressed.
    device_class: Home Assistant's word for it, or None.
    """

    name: str
    kind: Literal["switch", "number", "text", "button"] = "switch"
    unit: str = ""
    low: float | None = None
    high: float | None = None
    whole: bool = False
    longest: int = 255
    choices: tuple[str, ...] = ()
    device_class: str | None = None

    def checked(self, value: Value, text: str | None = None) -> Value:
        """The value as a driver gets it: bool, int or float, str, None for a button. Raises ValueError: what is right.

        text: the payload itself where it was a bare value, so that an output of text can be set to ``12``.
        """
        match self.kind:
            case "switch":
                return _switch(value)
            case "number":
                return self._number(value)
            case "text":
                return self._text(value if text is None else text)
            case "button":
                if value is None or (isinstance(value, str) and value.lower() == "press"):
                    return None
                raise ValueError(f'a button is pressed: "press", not {_shown(value)}')

    def _number(self, value: Value) -> int | float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"a number is due, not {_shown(value)}")
        if (self.low is not None and value < self.low) or (self.high is not None and value > self.high):
            limits = [f"at least {self.low:g}"] if self.low is not None else []
            limits += [f"at most {self.high:g}"] if self.high is not None else []
            raise ValueError(f"{_shown(value)} is out of range: {' and '.join(limits)} {self.unit}".rstrip())
        if self.whole:
            if value != int(value):
                raise ValueError(f"a whole number is due, not {_shown(value)}")
            return int(value)
        return value

    def _text(self, value: Value) -> str:
        if not isinstance(value, str):
            raise ValueError(f"text is due, not {_shown(value)}")
        if self.choices and value not in self.choices:
            raise ValueError(f"{_shown(value)} is not one of {', '.join(self.choices)}")
        if len(value) > self.longest:
            raise ValueError(f"text of at most {self.longest} characters is due, not {len(value)}")
        return value


@dataclass(frozen=True, slots=True)
class Command:
    """A payload, taken apart. text: the payload itself where it was a bare value; transaction: None if it has none."""

    value: Value
    text: str | None = None
    transaction: str | int | float | None = None


class CommandError(ValueError):
    """A payload that is no command. Caught by ``commands``, which answers with its text, and its transaction."""

    def __init__(self, message: str, transaction: str | int | float | None = None) -> None:
        super().__init__(message)
        self.transaction = transaction


def parse_command(payload: bytes) -> Command:
    """Take a payload apart (JSON: RFC 8259; text: UTF-8). Raises CommandError."""
    if not payload.strip():
        # Who clears a retained message sends an empty one (MQTT 3.1.1, section 3.3.1.3), which reaches us as well.
        raise CommandError("an empty message sets nothing")
    if len(payload) > LONGEST:
        raise CommandError(f"{len(payload)} bytes are too long; at most {LONGEST}")
    try:
        text = payload.decode().strip()
    except UnicodeDecodeError:
        raise CommandError("it is not UTF-8") from None
    try:
        value = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        if text.startswith("{"):
            raise CommandError(f"not JSON: {error}") from None
        return Command(text, text)
    if isinstance(value, dict):
        return _from_object(value)
    if isinstance(value, list):
        raise CommandError('a value is due, or an object as {"value": 1, "transaction": "a1"}; not a list')
    return Command(value, text)


def _from_object(table: dict[str, object]) -> Command:
    transaction = table.get("transaction")
    if not isinstance(transaction, str | int | float | None) or len(orjson.dumps(transaction)) > _TRANSACTION:
        raise CommandError(f"transaction is a string or a number of at most {_TRANSACTION} bytes")
    if strange := [key for key in table if key not in ("value", "transaction")]:
        raise CommandError(f"unknown: {', '.join(strange[:4])[:100]}; there are value and transaction", transaction)
    value = table.get("value")
    if not isinstance(value, str | int | float | None):
        raise CommandError("value is a string, a number, true or false", transaction)
    return Command(value, None, transaction)


def _switch(value: Value) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str | int) and str(value).lower() in _WORDS:
        return _WORDS[str(value).lower()]
    raise ValueError(f"on or off is due (also true, false, 1, 0), not {_shown(value)}")


def _shown(value: Value) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= 40 else f"{text[:37]}..."
