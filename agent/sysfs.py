"""What psutil does not know of a machine: which sensor is which, and how a Raspberry Pi's supply does. Read from /sys.

Every function takes ``root``, so that tests give a tree of their own. What a machine does not have is left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path("/sys")


class Sensor(NamedTuple):
    """One temperature: a name that is unique on this machine, and the file that holds it, in thousandths of °C."""

    name: str
    path: Path


def sensors(root: Path = ROOT) -> list[Sensor]:
    """The temperatures of this machine (Documentation/hwmon/sysfs-interface.rst), else its thermal zones.

    Named by chip and label; equal names by their device too, as hwmon's own numbers change from boot to boot.
    psutil.sensors_temperatures() leaves the device out: three DS18B20 would be one name, and change places.
    """
    found = list(_hwmon(root))
    if not found:
        zones = sorted((root / "class/thermal").glob("thermal_zone*/temp"))
        found = [(_text(path.parent / "type") or path.parent.name, path.parent.name, path) for path in zones]
    names = [name for name, _, _ in found]
    return [Sensor(name if names.count(name) == 1 else f"{name}_{device}", path) for name, device, path in found]


def _hwmon(root: Path) -> Iterator[tuple[str, str, Path]]:
    for chip in sorted((root / "class/hwmon").glob("hwmon*")):
        inputs = sorted(chip.glob("temp*_input"))
        for path in inputs:
            point = path.name.removesuffix("_input")
            label = _text(chip / f"{point}_label") or (point if len(inputs) > 1 else "")
            name = _text(chip / "name") or chip.name
            yield f"{name}_{label}" if label else name, os.path.basename(os.path.realpath(chip / "device")), path


def temperature(sensor: Sensor) -> float:
    """°C. Raises OSError or ValueError where the sensor has none now: a radio that is off, a disk that sleeps."""
    return int(sensor.path.read_bytes()) / 1000


_THROTTLED: Final = {0: "under_voltage", 1: "frequency_capped", 2: "throttled", 3: "soft_temperature_limit"}


class PiFlags(NamedTuple):
    """Where a Raspberry Pi's kernel tells of its supply; None where it does not."""

    throttled: Path | None
    alarm: Path | None


def pi_files(root: Path = ROOT) -> PiFlags:
    """The firmware's word (Raspberry Pi's kernels), and the alarm of the driver rpi_volt (every kernel)."""
    words = sorted((root / "devices/platform").glob("soc*/soc*:firmware/get_throttled"))
    alarms = [
        chip / "in0_lcrit_alarm"
        for chip in sorted((root / "class/hwmon").glob("hwmon*"))
        if _text(chip / "name") == "rpi_volt"
    ]
    return PiFlags(words[0] if words else None, alarms[0] if alarms else None)


def pi_flags(files: PiFlags) -> dict[str, bool]:
    """What holds now, and what was seen since boot: bits 0-3 and 16-19 of `vcgencmd get_throttled`.

    Raises OSError where the file is refused, ValueError where it holds no number.
    """
    if files.throttled is not None:
        bits = int(files.throttled.read_text(), 16)
        now = {name: bool(bits >> bit & 1) for bit, name in _THROTTLED.items()}
        return now | {f"{name}_seen": bool(bits >> bit + 16 & 1) for bit, name in _THROTTLED.items()}
    if files.alarm is not None:
        return {"under_voltage": int(files.alarm.read_text()) != 0}
    return {}


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
