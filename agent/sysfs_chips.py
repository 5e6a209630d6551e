"""Chips as the kernel shows them below /sys: which there are, and which one is meant."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from agent.errors import PortError


class Chip(NamedTuple):
    """One chip. name: of its kind ("bme280"); label: by the device tree, or ""; address: on its bus ("1-0076")."""

    name: str
    label: str
    address: str
    path: Path

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(filter(None, (self.address, self.label, self.path.name)))})"


def iio_chips(root: Path) -> list[Chip]:
    """Those of the Industrial I/O subsystem (Documentation/ABI/testing/sysfs-bus-iio)."""
    return [*_chips(root / "bus/iio/devices", "iio:device*")]


def hwmon_chips(root: Path) -> list[Chip]:
    """Those of the hardware monitors (Documentation/hwmon/sysfs-interface.rst)."""
    return [*_chips(root / "class/hwmon", "hwmon*")]


def _chips(folder: Path, pattern: str) -> Iterator[Chip]:
    for path in sorted(folder.glob(pattern)):
        # The numbers of chips change from boot to boot; the device that one belongs to is named by its place on a bus.
        parent = path / "device" if (path / "device").exists() else Path(os.path.realpath(path)).parent
        yield Chip(
            text(path / "name") or path.name, text(path / "label"), os.path.basename(os.path.realpath(parent)), path
        )


def choose(found: list[Chip], wanted: str, what: str) -> Chip:
    """The chip that has wanted as its address, label, number or name. Raises PortError if there is none, or several."""
    fit = [chip for chip in found if wanted in (chip.address, chip.label, chip.path.name)]
    fit = fit or [chip for chip in found if wanted == chip.name]
    if len(fit) == 1:
        return fit[0]
    if fit:
        listed = ", ".join(map(str, fit))
        raise PortError("failed", f"{len(fit)} chips are called {wanted}: {listed}", "name one by its address or label")
    listed = f"now here: {', '.join(map(str, found))}" if found else "none is here now"
    raise PortError(
        "missing", f"no {what} chip is called {wanted}", f"load its driver or device-tree overlay; {listed}"
    )


def text(path: Path) -> str:
    """What a small file says, without the line's end; "" if it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
