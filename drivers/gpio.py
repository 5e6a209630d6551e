"""GPIO lines: switches and contacts, pulse counters (S0, flow, rain, fans), relays.

Device: the lines of one GPIO chip, through the kernel's character device (Linux 5.10 or newer) and libgpiod (extra
``gpio``). ``chip`` is a path, a name, or best a label: ``pinctrl-rp1`` on a Pi 5, ``pinctrl-bcm2711`` on a Pi 4,
``pinctrl-bcm2835`` on older ones; ``gpiodetect`` lists them. ``line`` is the number in the chip (a Pi's BCM number) or
the line's name, as ``"GPIO17"``. Several devices may use lines of one chip.

Wire format: edges as the kernel has them, 48 bytes each (struct gpio_v2_line_event), debounced by it and with its time.

- Inputs: a reading at each change, with the kernel's time, and with the rest every ``interval``. True is active, which
  ``active_low`` turns round, as for a contact to ground with ``bias = "pull-up"``.
- Counters: each change from inactive to active is a pulse. Every ``interval`` a reading has the total as ``<name>``
  (``start + pulses * per_pulse / per_unit``), ``<name>_rate`` (units a ``rate_per``, measured from pulse to pulse),
  ``<name>_frequency`` (pulses a second) and ``<name>_lost``, as ``show`` says. The kernel keeps 1024 edges and numbers
  them all: those that it had to drop are in the total, and in ``_lost``, as their times are unknown; a gap is a fault.
- Outputs: set by ``outstation/<agent>/<device>/<name>/set``, on or off. ``pulse`` switches off by itself. ``dead_man``
  switches to ``fallback`` when there has been no broker for so long; it stays so until the next command.

Totals are kept in a file beside the outbox: written every ``save`` while they change, and at a clean stop. A crash or
power cut loses what was counted since then. Pulses while the agent is not running are not counted.

Source: include/uapi/linux/gpio.h and Documentation/userspace-api/gpio of the kernel; S0: IEC 62053-31.

Sample::

    [[device]]
    name = "cellar"
    driver = "gpio"
    chip = "pinctrl-bcm2711"

    [device.inputs.door]
    line = 17
    bias = "pull-up"
    active_low = true
    debounce = "10ms"
    device_class = "door"

    [device.counters.energy]
    line = "GPIO27"
    bias = "pull-up"
    active_low = true
    debounce = "2ms"
    per_unit = 1000
    unit = "kWh"
    device_class = "energy"

    [device.outputs.pump]
    line = 22
    dead_man = "5m"
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from agent.driver import Context, DeviceConfig, DeviceLost, Done, Driver, Port, Value, gpiod_lacking
from agent.driver_gpio import ChipLines, EdgeParser
from agent.driver_gpio_lines import OpenLines, Switches, Totals
from agent.edges import PulseMeter
from agent.quantity import Interval


class GpioConfig(ChipLines, DeviceConfig):
    """Lines of one chip, by the name of their channel."""

    interval: Interval = Field(10.0, description="Time between two readings of all that is here.")
    save: Interval = Field(60.0, description="Time between two writings of the totals to disk, while they change.")


class Gpio(Driver):
    """GPIO: inputs with debounce and the kernel's time, pulse counters whose totals survive restarts, outputs."""

    Config = GpioConfig

    def __init__(self, config: GpioConfig, ctx: Context) -> None:
        super().__init__(config, ctx)
        self.channels = config.line_channels()
        self.outputs = config.line_outputs()
        self._totals = Totals(ctx, config.counters)

    @classmethod
    def shares(cls, config: GpioConfig) -> None:  # noqa: ARG003
        """Nothing: lines of one chip may be in several devices; a line that is taken is told when it is opened."""
        return

    @classmethod
    def appears(cls, config: GpioConfig) -> str:
        return config.chip if config.chip.startswith("/") else "/dev/gpiochip*"

    @classmethod
    def lacks(cls, config: GpioConfig) -> str | None:  # noqa: ARG003
        return gpiod_lacking()

    def parser(self) -> EdgeParser:
        """For golden cases, whose lines are given by number: of one by name only the kernel knows it."""
        lines = [line.line for line in self.config.lines().values()]
        offsets = [line if isinstance(line, int) else -1 - place for place, line in enumerate(lines)]
        return EdgeParser(self.config, offsets, {name: PulseMeter() for name in self.config.counters})

    def open(self) -> Port:
        self._totals.load()
        return self.ctx.open_gpio(self.config.chip, self.config.requests())

    def start(self, port: Any) -> None:
        self._lines = OpenLines(self.ctx, self.config, port, self._totals.meters)
        self._switches = Switches(self.ctx, self.config.outputs, self._lines.set_level)
        self.ctx.watch(port, self._lines.take)
        self.ctx.every(self.config.interval, self._lines.report, first_after=0.0, name="report")
        if self.config.counters:
            self.ctx.every(self.config.save, self._totals.save, name="save")

    def stop(self) -> None:
        try:
            self._lines.take()  # what came before the stop
            self._switches.stop()
        except DeviceLost:
            pass  # it is why we stop
        self._totals.save()

    def set(self, output: str, value: Value, done: Done) -> None:
        self._switches.set(output, bool(value))
        done(None)

    def link_changed(self, up: bool) -> None:
        self._switches.link_changed(up)
