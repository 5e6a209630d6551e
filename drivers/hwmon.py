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

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, Field

from agent.driver import Context, Fault, PortError, Sample
from agent.driver_worker import WorkerConfig, WorkerDriver, items
from agent.sysfs_chips import choose, hwmon_chips
from agent.sysfs_hwmon import read, sensors


class HwmonConfig(WorkerConfig):
    """Which chip is read, and how often."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    chip: str = Field(min_length=1, description='Its name ("ina219"), its address ("1-0040"), its label, or "hwmon2".')


class Hwmon(WorkerDriver):
    """A chip with a hardware monitoring driver of the kernel: INA219, SHT3x, LM75, fans, supplies."""

    Config = HwmonConfig
    root: ClassVar[Path] = Path("/sys")

    def __init__(self, config: HwmonConfig, ctx: Context) -> None:
        super().__init__(config, ctx)
        self._rules = config.field_rules()

    @classmethod
    def shares(cls, config: Any) -> str | None:  # noqa: ARG003
        return None  # the kernel has it open, and serves everybody

    def open(self) -> None:
        path = self._chip()
        found = sensors(path)
        self.channels = self.config.described(sensor.channel for sensor in found)
        if not found:
            raise PortError("unsupported", f"{self.config.chip} has no sensor that could be read", f"see: ls {path}")

    def find(self) -> Sequence[str]:
        return [str(self._chip())]

    def ask(self, piece: str) -> Any:
        return read(Path(piece))

    def answered(self, piece: str, answer: Any) -> Iterable[Sample | Fault]:  # noqa: ARG002
        return items(self._rules, *answer)

    def _chip(self) -> Path:
        return choose(hwmon_chips(self.root), self.config.chip, "hwmon").path
