"""What the configuration says of a quantity is one set of words, in lines, frames and registers."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from agent.fields import ChannelSettings, QuantitySettings
from agent.fields_binary import BinaryField
from agent.modbus import Register
from agent.model import Channel

PLACES: list[tuple[type[QuantitySettings], dict[str, Any]]] = [
    (ChannelSettings, {}),
    (BinaryField, {"at": 0, "type": "u16"}),
    (Register, {"name": "x", "address": 0}),
]
places = pytest.mark.parametrize(("kind", "needed"), PLACES, ids=lambda value: getattr(value, "__name__", ""))


@places
def test_a_quantity_is_described_alike_wherever_it_stands(kind: type[QuantitySettings], needed: dict[str, Any]) -> None:
    words = {"unit": "°C", "low": -40, "high": 85, "device_class": "temperature", "state_class": "measurement"}
    made = kind(**needed, **words, scale=0.1)
    assert made.channel("t") == Channel("t", **words)
    assert made.typed("number") == ChannelSettings(type="number", **words, scale=0.1)


@places
@pytest.mark.parametrize(
    ("words", "said"),
    [({"scale": 0}, "scale = 0 makes every value the same"), ({"low": 2, "high": 1}, "low = 2 is above high = 1")],
)
def test_what_makes_no_sense_is_refused_alike(
    kind: type[QuantitySettings], needed: dict[str, Any], words: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        kind(**needed, **words)


def test_a_text_has_no_scale() -> None:
    with pytest.raises(ValidationError, match="are for numbers"):
        BinaryField(at=0, type="text", size=4, scale=2.0)
    with pytest.raises(ValidationError, match="are for numbers"):
        Register(name="x", address=0, type="string", length=2, low=1)
