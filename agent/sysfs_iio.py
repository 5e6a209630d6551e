"""Channels of the kernel's Industrial I/O subsystem: which a chip has, what they measure, and their values.

Source: Documentation/ABI/testing/sysfs-bus-iio. A channel is read by ``in_<channel>_input``, which is processed, or by
``in_<channel>_raw``, whose value is (raw + offset) * scale. Where the ABI has thousandths (of °C, %, V, A, W) the value
is in the whole unit; every other unit is the ABI's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from agent.model import Channel, Fault, Value


class Kind(NamedTuple):
    """A type of channel: unit after division by ``per``, and Home Assistant's word for it."""

    unit: str = ""
    per: int = 1
    device_class: str | None = None


KINDS: Final = {
    "voltage": Kind("V", 1000, "voltage"),
    "altvoltage": Kind("V", 1000, "voltage"),
    "current": Kind("A", 1000, "current"),
    "power": Kind("W", 1000, "power"),
    "energy": Kind("J", 1, "energy"),
    "temp": Kind("°C", 1000, "temperature"),
    "humidityrelative": Kind("%", 1000, "humidity"),
    "pressure": Kind("kPa", 1, "pressure"),
    "illuminance": Kind("lx", 1, "illuminance"),
    "accel": Kind("m/s²"),
    "gravity": Kind("m/s²"),
    "velocity": Kind("m/s", 1, "speed"),
    "anglvel": Kind("rad/s"),
    "angl": Kind("rad"),
    "incli": Kind("°"),
    "magn": Kind("G"),
    "distance": Kind("m", 1, "distance"),
    "resistance": Kind("Ω"),
    "capacitance": Kind("nF"),
    "concentration": Kind("%"),
    "massconcentration": Kind("µg/m³"),
    "electricalconductivity": Kind("S/m"),
    "ph": Kind("", 1, "ph"),
    "positionrelative": Kind("%", 1000),
}
"""Types of channels that have a unit; every other one has none, as ``intensity``, ``proximity`` or ``count``."""

_READ: Final = re.compile(r"in_(?P<channel>[a-z].*)_(?P<how>input|raw)")
_EXTREME: Final = re.compile(r"_(mean|peak|trough)$")  # of a past that nobody here has begun


def channels(chip: Path) -> dict[str, Path]:
    """Name of each channel, as ``temp``, ``voltage0``, ``voltage0-voltage1``, with the file that is read for it."""
    found: dict[str, Path] = {}
    for path in sorted(chip.glob("in_*")):  # "input" sorts before "raw", and wins
        match = _READ.fullmatch(path.name)
        if match is not None and not _EXTREME.search(match["channel"]):
            found.setdefault(match["channel"], path)
    return found


def describe(name: str) -> Channel:
    """The channel of that name, with the unit of the ABI."""
    kind = _kind(name)
    return Channel(name, kind.unit, device_class=kind.device_class, state_class="measurement")


def read(chip: Path) -> tuple[dict[str, Value], list[Fault]]:
    """All values of a chip, and a Fault for each channel that has none. May block: it measures now."""
    fields: dict[str, Value] = {}
    faults: list[Fault] = []
    for name, path in channels(chip).items():
        try:
            fields[name] = _value(chip, name, path)
        except OSError as error:
            faults.append(Fault("unreadable", f"{name}: {error.strerror}"))
        except ValueError as error:  # a quaternion, or something that this ABI does not have
            faults.append(Fault("number", f"{name}: {error}"))
    return fields, faults


def _value(chip: Path, name: str, path: Path) -> int | float:
    value = _number(path)
    if path.name.endswith("_raw"):
        offset, scale = _attribute(chip, name, "offset"), _attribute(chip, name, "scale")
        value = (value + (offset or 0)) * (1 if scale is None else scale)
    per = _kind(name).per
    # 15 digits are what a double holds for sure: no 21.500000000000004.
    return value if per == 1 and isinstance(value, int) else float(f"{value / per:.15g}")


def _attribute(chip: Path, name: str, attribute: str) -> int | float | None:
    """Of the channel itself, else what it shares with others of its kind; None if there is none."""
    for shared in _shared(name):
        path = chip / f"{shared}_{attribute}"
        if path.exists():
            return _number(path)
    return None


def _shared(name: str) -> Iterator[str]:
    """``voltage0-voltage1``: in_voltage0-voltage1, in_voltage-voltage, in_voltage, in."""
    yield f"in_{name}"
    yield f"in_{re.sub(r'[0-9]+', '', name)}"
    kinds = "-".join(_word(part) for part in name.split("-"))
    yield f"in_{kinds}"
    yield f"in_{_word(name)}"
    yield "in"


def _kind(name: str) -> Kind:
    return KINDS.get(_word(name), Kind())


def _word(name: str) -> str:
    match = re.match(r"[a-z]+", name)
    return match[0] if match else name


def _number(path: Path) -> int | float:
    """A decimal number. Raises OSError, ValueError."""
    text = path.read_text().strip()
    value = float(text) if "." in text else int(text)
    if not abs(value) < 1e300:
        raise ValueError(f"not a finite number: {text}")
    return value
