"""A chip with a hardware monitoring driver of the kernel: INA219, SHT3x, LM75, a board's fan, its supply.

Device: a chip on I2C or SPI, or a part of the board, for which the kernel has such a driver; on a Raspberry Pi by a
line in config.txt as ``dtoverlay=i2c-sensor,sht3x``. ``grep . /sys/class/hwmon/*/name`` shows which there are.

One reading an interval with all sensors of the chip, by their labels or else the kernel's names: ``temp1``, ``in1``
(volts), ``curr1`` (A), ``power1`` (W), ``energy1`` (J), ``humidity1`` (%), ``fan1`` (rpm), ``pwm1`` (% of full speed).
A sensor that cannot be read is the fault ``unreadable``, one that the chip reports as broken the fault ``sensor``;
neither takes another with it. The driver ``host`` has the temperatures of all chips at once.

Source: the kernel's Documentation/hwmon/sysfs-interface.rst.

Sample::

    [[device]]
    name = "solar"
    driver = "hwmon"
    chip = "ina219"
    interval = "5s"

    [device.channels.in1]
    name = "battery"
    low = 0
    high = 26
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from agent.driver import PortError
from agent.driver_chips import ChipDriver
from agent.driver_worker import WorkerConfig
from agent.sysfs_chips import choose, hwmon_chips
from agent.sysfs_hwmon import read, sensors


class HwmonConfig(WorkerConfig):
    """Which chip is read, and how often."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    chip: str = Field(min_length=1, description='Its name ("ina219"), its address ("1-0040"), its label, or "hwmon2".')


class Hwmon(ChipDriver):
    """A chip with a hardware monitoring driver of the kernel: INA219, SHT3x, LM75, fans, supplies."""

    Config = HwmonConfig

    def open(self) -> None:
        path = self.chip()
        found = sensors(path)
        self.channels = self.config.described(sensor.channel for sensor in found)
        if not found:
            raise PortError("unsupported", f"{self.config.chip} has no sensor that could be read", f"see: ls {path}")

    def ask(self, piece: str) -> Any:
        return read(Path(piece))

    def chip(self) -> Path:
        return choose(hwmon_chips(self.root), self.config.chip, "hwmon").path
