"""A sensor or converter with a driver of the kernel's Industrial I/O subsystem: BME280, ADS1115, SCD4x, BH1750 ...

Device: a chip on I2C, SPI or 1-Wire for which the kernel has a driver and the device tree an entry; on a Raspberry Pi
by a line in config.txt as ``dtoverlay=i2c-sensor,bme280`` or ``dtoverlay=ads1115,cha_enable``. What there is shows
``grep . /sys/bus/iio/devices/*/name``.

One reading an interval with all channels of the chip, by the kernel's names without ``in_``: ``temp``, ``pressure``,
``humidityrelative``; ``voltage0``, ``voltage0-voltage1``; ``accel_x``. Thousandths become whole units (°C, %, V, A, W);
every other unit is the kernel's: pressure is in kPa, ``scale = 10`` makes hPa of it. A channel that cannot be read is
the fault ``unreadable`` and takes no other with it. Buffers and triggers, for thousands of values a second, are not
read.

Some drivers have not kept to the kernel's own rules: that of the BME280 before Linux 4.18 gives humidity in %, not in
thousandths, and that of the BME680 also pressure in hPa. ``scale`` in ``channels`` mends that.

Source: the kernel's Documentation/ABI/testing/sysfs-bus-iio.

Sample::

    [[device]]
    name = "climate"
    driver = "iio"
    chip = "bme280"
    interval = "30s"

    [device.channels.pressure]
    unit = "hPa"
    scale = 10
    low = 300
    high = 1100
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, Field

from agent.driver import Context, Fault, PortError, Sample
from agent.driver_worker import WorkerConfig, WorkerDriver, items
from agent.sysfs_chips import choose, iio_chips
from agent.sysfs_iio import channels, describe, read


class IioConfig(WorkerConfig):
    """Which chip is read, and how often."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    chip: str = Field(
        min_length=1, description='Its name ("bme280"), its address ("1-0076"), its label, or "iio:device0".'
    )


class Iio(WorkerDriver):
    """A chip with a driver of the kernel's Industrial I/O: BME280, ADS1115 and many more."""

    Config = IioConfig
    root: ClassVar[Path] = Path("/sys")

    def __init__(self, config: IioConfig, ctx: Context) -> None:
        super().__init__(config, ctx)
        self._rules = config.field_rules()

    @classmethod
    def shares(cls, config: Any) -> str | None:  # noqa: ARG003
        return None  # the kernel has it open, and serves everybody

    def open(self) -> None:
        path = self._chip()
        self.channels = self.config.described(map(describe, channels(path)))
        if not channels(path):
            raise PortError("unsupported", f"{self.config.chip} has no channel that could be read", f"see: ls {path}")

    def find(self) -> Sequence[str]:
        return [str(self._chip())]

    def ask(self, piece: str) -> Any:
        return read(Path(piece))

    def answered(self, piece: str, answer: Any) -> Iterable[Sample | Fault]:  # noqa: ARG002
        return items(self._rules, *answer)

    def _chip(self) -> Path:
        return choose(iio_chips(self.root), self.config.chip, "iio").path
