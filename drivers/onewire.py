r"""DS18B20 and its relatives on a 1-Wire bus of the kernel: temperatures.

Device: Maxim/Analog DS18B20, DS18S20, DS1822, DS1825, DS28EA00. On a Raspberry Pi ``dtoverlay=w1-gpio`` in config.txt,
the data line on GPIO 4 with 4.7 kΩ to 3.3 V. ``ls /sys/bus/w1/devices`` shows their numbers.

Wire format: the file ``w1_slave`` of a sensor: the nine bytes of its scratchpad with the kernel's word on their CRC,
then the same bytes with the temperature in thousandths of °C::

    a1 01 4b 46 7f ff 0f 10 d9 : crc=d9 YES
    a1 01 4b 46 7f ff 0f 10 d9 t=26062

Each sensor is a reading of its own, with one channel that has the sensor's number as its name unless ``channels`` gives
another. To read one takes 750 ms, and those on one bus come one after another: 13 fit in the default interval.

- A CRC that does not fit, or nothing but zeros (a line without supply, whose CRC fits), is the fault ``checksum``.
- 85 °C is what the scratchpad holds after power-on, before the first conversion. It is the fault ``power_on``, unless
  byte 6 says that a conversion gave it (0x10; after power-on it is 0x0C).
- A sensor named in ``channels`` that is not on the bus is the fault ``missing``.

Source: Maxim, DS18B20 datasheet 19-7487 rev 6 (memory map, table 1, CRC generation); the kernel's
Documentation/w1/slaves/w1_therm.rst.

Sample::

    [[device]]
    name = "boiler"
    driver = "onewire"
    interval = "30s"

    [device.channels.28-0000075f5202]
    name = "flow"
    low = 0
    high = 110

    [device.channels.28-0000075f24dc]
    name = "return"
    offset = -0.3
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from agent.driver import Channel, Context, Fault, Parser, PortError, Sample
from agent.driver_worker import WorkerConfig, WorkerDriver, items
from agent.fields import FieldRules
from agent.framing import LineFramer
from agent.sysfs_w1 import FIRST, LONGEST, SECOND, damage, never_converted, sensors, slave_file


class OneWireParser(Parser):
    """The file of one sensor to a sample."""

    def __init__(self, sensor: str, rules: FieldRules) -> None:
        self._sensor = sensor
        self._rules = rules
        self._framer = LineFramer(b"\n", LONGEST)
        self._scratchpad: bytes | None = None
        self._refused = False

    def feed(self, data: bytes) -> Iterable[Sample | Fault]:
        found: list[Sample | Fault] = []
        for line in self._framer.feed(data):
            if isinstance(line, Fault):
                found.append(line)
            elif first := FIRST.fullmatch(line):
                found += self._checked(first[1], first[2] == b"YES")
            elif (second := SECOND.fullmatch(line)) and (self._refused or second[1] == self._scratchpad):
                found += [] if self._refused else self._temperature(second[1], int(second[2]))
                self._scratchpad, self._refused = None, False
            else:
                found.append(Fault("syntax", f"{self._sensor}: not a line of w1_slave that is due here", line))
        return found

    def end(self) -> Iterable[Sample | Fault]:
        cut = self._framer.end()
        if self._scratchpad is not None and not cut:
            cut = [Fault("cut", f"{self._sensor}: no temperature behind the scratchpad", self._scratchpad)]
        self._scratchpad, self._refused = None, False
        return cut

    def _checked(self, scratchpad: bytes, good: bool) -> list[Fault]:
        wrong = damage(scratchpad, good=good)
        self._scratchpad, self._refused = scratchpad, wrong is not None
        return [] if wrong is None else [Fault("checksum", f"{self._sensor}: {wrong}", scratchpad)]

    def _temperature(self, scratchpad: bytes, thousandths: int) -> list[Sample | Fault]:
        if never_converted(scratchpad, thousandths):
            why = f"{self._sensor}: 85 °C, as after power-on: no conversion was made"
            return [Fault("power_on", why, scratchpad)]
        return items(self._rules, {self._sensor: thousandths / 1000})


class OneWire(WorkerDriver):
    """Temperature sensors on a 1-Wire bus of the kernel: DS18B20 and its relatives."""

    Config = WorkerConfig
    root: ClassVar[Path] = Path("/sys")

    def __init__(self, config: WorkerConfig, ctx: Context) -> None:
        super().__init__(config, ctx)
        self._rules = config.field_rules()

    def parser(self, sensor: str | None = None) -> Parser:
        """For the file of one sensor; None: the first that the configuration names."""
        return OneWireParser(sensor or next(iter(self.config.channels), "temperature"), self._rules)

    def open(self) -> None:
        found = [Channel(name, "°C", -55, 125, "temperature", "measurement") for name in self.find()]
        self.channels = self.config.described(found)

    def find(self) -> Sequence[str]:
        present = sensors(self.root)
        if not present:
            remedy = (
                "is dtoverlay=w1-gpio in config.txt, and 4.7 kΩ from the data line to 3.3 V? ls /sys/bus/w1/devices"
            )
            raise PortError("missing", "no temperature sensor on a 1-Wire bus", remedy)
        named = [*self.config.channels]
        kept = present if self.config.others == "keep" else [name for name in present if name in named]
        return [*kept, *(name for name in named if name not in present)]

    def ask(self, piece: str) -> bytes | None:
        return slave_file(self.root, piece)

    def answered(self, piece: str, answer: Any) -> Iterable[Sample | Fault]:
        if answer is None:
            return [Fault("missing", f"{piece} is not on the bus")]
        parser = self.parser(piece)
        return [*parser.feed(answer), *parser.end()]
