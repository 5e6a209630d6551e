"""Temperature sensors on the kernel's 1-Wire buses: which there are, their files, and what a scratchpad says.

Source: the kernel's Documentation/w1/slaves/w1_therm.rst; Maxim, DS18B20 datasheet 19-7487 rev 6 (memory map, table 1,
CRC generation).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from agent.framing_check import check_named

LONGEST: Final = 64
"""Bytes of a line; the kernel's have 39."""

_BYTES: Final = rb"((?:[0-9a-f]{2} ){9})"
FIRST: Final = re.compile(_BYTES + rb": crc=[0-9a-f]{2} (YES|NO)")
"""The first line of ``w1_slave``: the scratchpad, and whether the kernel takes it for whole."""
SECOND: Final = re.compile(_BYTES + rb"t=(-?[0-9]{1,6})")
"""The second line: the same bytes, and thousandths of °C."""

POWER_ON: Final = 85000
"""Thousandths of °C that a scratchpad holds before the first conversion."""
CONVERTED: Final = 0x10
"""Byte 6 of the scratchpad after a conversion without a rest in sixteenths, as that of 85 °C."""

crc8: Final = check_named("crc-8/maxim-dow").compute


def sensors(root: Path) -> list[str]:
    """Numbers of those that have a temperature, as ``28-0000075f5202``. root: of sysfs. May block."""
    return [path.parent.name for path in sorted(root.glob("bus/w1/devices/*/w1_slave"))]


def slave_file(root: Path, sensor: str) -> bytes | None:
    """What ``w1_slave`` of a sensor says; None if it is not there. Blocks: for the 750 ms of a conversion.

    Raises OSError.
    """
    try:
        return (root / "bus/w1/devices" / sensor / "w1_slave").read_bytes()
    except FileNotFoundError:
        return None


def damage(text: bytes, *, good: bool) -> str | None:
    """What is wrong with the scratchpad of a first line, for a person; None: nothing. good: the kernel's word on it."""
    scratchpad = bytes.fromhex(text.decode())
    if not any(scratchpad):  # its CRC fits: that of eight zeros is zero
        return "all zero: no supply, or the line is shorted"
    if not good or crc8(scratchpad[:8]) != scratchpad[8]:
        return "the CRC does not fit"
    return None


def never_converted(text: bytes, thousandths: int) -> bool:
    """The temperature of a second line is what stands there after power-on: no conversion gave it."""
    return thousandths == POWER_ON and bytes.fromhex(text.decode())[6] != CONVERTED
