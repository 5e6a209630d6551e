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

from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from agent.driver import PortError
from agent.driver_chips import ChipDriver
from agent.driver_worker import WorkerConfig
from agent.sysfs_chips import choose, iio_chips
from agent.sysfs_iio import channels, describe, read


class IioConfig(WorkerConfig):
    """Which chip is read, and how often."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    chip: str = Field(
        min_length=1, description='Its name ("bme280"), its address ("1-0076"), its label, or "iio:device0".'
    )


class Iio(ChipDriver):
    """A chip with a driver of the kernel's Industrial I/O: BME280, ADS1115 and many more."""

    Config = IioConfig

    def open(self) -> None:
        path = self.chip()
        self.channels = self.config.described(map(describe, channels(path)))
        if not channels(path):
            raise PortError("unsupported", f"{self.config.chip} has no channel that could be read", f"see: ls {path}")

    def ask(self, piece: str) -> Any:
        return read(Path(piece))

    def chip(self) -> Path:
        return choose(iio_chips(self.root), self.config.chip, "iio").path
