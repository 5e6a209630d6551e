"""Sensors of the kernel's hardware monitors: which a chip has, what they measure, and their values.

Source: Documentation/hwmon/sysfs-interface.rst. ``<kind><n>_input`` in thousandths (or millionths, or as it is) of the
unit; ``_average`` where a power sensor has no ``_input``; ``_label`` names it; ``_fault`` tells of a broken sensor.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

from agent.model import Channel, Fault, Value
from agent.sysfs_chips import text


class Kind(NamedTuple):
    """A kind of sensor: unit after division by ``per``, and Home Assistant's words for it."""

    unit: str
    per: float
    device_class: str | None = None
    state_class: str = "measurement"


KINDS: Final = {
    "in": Kind("V", 1000, "voltage"),
    "temp": Kind("°C", 1000, "temperature"),
    "curr": Kind("A", 1000, "current"),
    "power": Kind("W", 1_000_000, "power"),
    "energy": Kind("J", 1_000_000, "energy", "total_increasing"),
    "humidity": Kind("%", 1000, "humidity"),
    "freq": Kind("Hz", 1, "frequency"),
    "fan": Kind("rpm", 1),
    "pwm": Kind("%", 2.55),  # 0 to 255
}
_READ: Final = re.compile(r"(?P<sensor>(?P<kind>in|temp|curr|power|energy|humidity|freq|fan)[0-9]+)_(?:input|average)")
_PWM: Final = re.compile(r"(?P<sensor>(?P<kind>pwm)[0-9]+)")


class Sensor(NamedTuple):
    """One sensor. name: its label, or its kind and number where it has none or shares it."""

    name: str
    kind: Kind
    path: Path
    fault: Path
    """Not there for most of them."""

    @property
    def channel(self) -> Channel:
        kind = self.kind
        return Channel(self.name, kind.unit, device_class=kind.device_class, state_class=kind.state_class)


def sensors(chip: Path) -> list[Sensor]:
    """The sensors of a chip, in the order of their names in the kernel, numbers as numbers."""
    found: dict[str, tuple[str, Path]] = {}
    for path in sorted(chip.iterdir()):  # "_input" comes after "_average", and wins
        match = _READ.fullmatch(path.name) or _PWM.fullmatch(path.name)
        if match is not None:
            found[match["sensor"]] = (match["kind"], path)
    labels = {sensor: text(chip / f"{sensor}_label") or sensor for sensor in found}
    names = [*labels.values()]
    return [
        Sensor(
            labels[sensor] if names.count(labels[sensor]) == 1 else sensor,
            KINDS[kind],
            path,
            chip / f"{sensor}_fault",
        )
        for sensor, (kind, path) in sorted(found.items(), key=lambda item: _natural(item[0]))
    ]


def read(chip: Path) -> tuple[dict[str, Value], list[Fault]]:
    """All values of a chip, and a Fault for each sensor that has none. May block: on a slow bus."""
    fields: dict[str, Value] = {}
    faults: list[Fault] = []
    for sensor in sensors(chip):
        try:
            if sensor.fault.exists() and int(sensor.fault.read_text()):
                faults.append(Fault("sensor", f"{sensor.name}: the chip says that the sensor is open or shorted"))
                continue
            value = int(sensor.path.read_text())
        except OSError as error:
            faults.append(Fault("unreadable", f"{sensor.name}: {error.strerror}"))
        except ValueError as error:
            faults.append(Fault("number", f"{sensor.name}: {error}"))
        else:
            per = sensor.kind.per
            fields[sensor.name] = value if per == 1 else float(f"{value / per:.6g}") if per == 2.55 else value / per
    return fields, faults


def _natural(name: str) -> tuple[str, int]:
    kind = name.rstrip("0123456789")
    return kind, int(name[len(kind) :])
