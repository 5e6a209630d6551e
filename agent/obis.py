"""OBIS codes: what a register of an electricity meter is called here, and in which unit. Pure.

A code is written ``A-B:C.D.E*F``: medium, channel, quantity, processing, tariff, billing period. Meters leave out
``A-B:``, ``E`` or ``*F``, or write 255 for "not used". Three drivers read them, in DSMR's P1, in SML and in IEC
62056-21; a register has the same name and unit in all of them.

Sources: IEC 62056-6-1:2017 (the codes; tables 5 to 15 are those of electricity), IEC 62056-21:2002, section 6 and annex
C (data sets ``code(value*unit)``), DSMR P1 Companion Standard 5.0.2, section 6.12.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Final, NamedTuple, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator

from agent.framing import SAMPLE
from agent.model import Channel, Fault, Sample, Value

DataSets: TypeAlias = list[tuple[str, list[str]]]
"""Code and values of each data set of a readout, in order."""


class Register(NamedTuple):
    """A quantity with a name. unit: of the published value; the classes are Home Assistant's words."""

    name: str
    unit: str = ""
    device_class: str | None = None
    state_class: str | None = "measurement"

    def channel(self) -> Channel:
        return Channel(self.name, self.unit, device_class=self.device_class, state_class=self.state_class)


UNITS: Final = {
    "": ("", 0),
    **{one: (one, 0) for one in ("W", "VA", "var", "kWh", "kVAh", "kvarh", "GJ")},
    **{f"k{one}": (one, 3) for one in ("W", "VA", "var")},
    **{one: (f"k{one}", -3) for one in ("Wh", "VAh", "varh")},
    **{f"M{one}": (f"k{one}", 3) for one in ("Wh", "VAh", "varh")},
    "V": ("V", 0),
    "mV": ("V", -3),
    "A": ("A", 0),
    "mA": ("A", -3),
    "Hz": ("Hz", 0),
    "deg": ("°", 0),
    "m3": ("m³", 0),
    "dm3": ("m³", -3),
    "l": ("m³", -3),
}
"""A unit on the wire -> the unit that is published, and the power of ten between them. Energy is in kWh, power in W."""


def _phases(c: int, name: str, unit: str, device_class: str | None) -> dict[str, Register]:
    """An instantaneous quantity: in all (c), and in each phase (c + 20, c + 40, c + 60)."""
    found = {f"{c}.7.0": Register(name, unit, device_class)}
    return found | {f"{c + 20 * n}.7.0": Register(f"{name}_l{n}", unit, device_class) for n in (1, 2, 3)}


def _tariffs(c: int, name: str, unit: str, device_class: str | None, tariffs: int) -> dict[str, Register]:
    """A counter: in all, and by tariff."""
    named = [name, *(f"{name}_t{n}" for n in range(1, tariffs + 1))]
    return {f"{c}.8.{n}": Register(one, unit, device_class, "total_increasing") for n, one in enumerate(named)}


REGISTERS: Final[dict[str, Register]] = {
    **_tariffs(1, "energy_import", "kWh", "energy", 4),
    **_tariffs(2, "energy_export", "kWh", "energy", 4),
    **_tariffs(15, "energy_absolute", "kWh", "energy", 2),
    **_phases(16, "power", "W", "power"),
    **_phases(15, "power_absolute", "W", "power"),
    **_phases(1, "power_import", "W", "power"),
    **_phases(2, "power_export", "W", "power"),
    **_phases(12, "voltage", "V", "voltage"),
    **_phases(11, "current", "A", "current"),
    "91.7.0": Register("current_n", "A", "current"),
    "14.7.0": Register("frequency", "Hz", "frequency"),
    **_phases(13, "power_factor", "", "power_factor"),
    "81.7.1": Register("angle_u2_u1", "°"),
    "81.7.2": Register("angle_u3_u1", "°"),
    "81.7.4": Register("angle_i1_u1", "°"),
    "81.7.15": Register("angle_i2_u2", "°"),
    "81.7.26": Register("angle_i3_u3", "°"),
    **_tariffs(3, "reactive_energy_import", "kvarh", "reactive_energy", 2),
    **_tariffs(4, "reactive_energy_export", "kvarh", "reactive_energy", 2),
    **_phases(3, "reactive_power_import", "var", "reactive_power"),
    **_phases(4, "reactive_power_export", "var", "reactive_power"),
    **_phases(9, "apparent_power", "VA", "apparent_power"),
    "1.4.0": Register("demand_import", "W", "power"),
    "1.6.0": Register("demand_import_max", "W", "power"),
    "2.4.0": Register("demand_export", "W", "power"),
    "2.6.0": Register("demand_export_max", "W", "power"),
    "31.4.0": Register("current_limit", "A", "current"),
    **{f"{12 + 20 * n}.32.0": Register(f"voltage_sags_l{n}", "", None, "total_increasing") for n in (1, 2, 3)},
    **{f"{12 + 20 * n}.36.0": Register(f"voltage_swells_l{n}", "", None, "total_increasing") for n in (1, 2, 3)},
    "0-0:96.14.0": Register("tariff", "", None, None),
    "0-0:96.7.21": Register("power_failures", "", None, "total_increasing"),
    "0-0:96.7.9": Register("long_power_failures", "", None, "total_increasing"),
    "0-0:96.3.10": Register("switch_position", "", None, None),
    "0-0:17.0.0": Register("power_limit", "W", "power"),
}
"""By ``C.D.E`` where the medium is electricity, by the whole code otherwise."""

_FRACTION: Final = {"power_factor"}
"""Device classes of numbers without a unit that are no counts."""

_PROFILES: Final = ("98", "99")
"""Quantities that are lists of the past: peaks by month, power failures."""

_CODE: Final = re.compile(
    r"(?:(\d{1,3})-(\d{1,3}):)?([0-9A-Z]{1,3})\.(\d{1,3})(?:\.(\d{1,3}))?(?:[*&](\d{1,3}))?", re.ASCII
)
_NUMBER: Final = re.compile(r"([-+]?\d{1,15}(?:\.\d{0,12})?)(?:\*(\S{1,8}))?", re.ASCII)
_DATA_SET: Final = re.compile(r"([0-9A-Z.:*&-]{0,32})\(([ -'*-~]*)\)", re.ASCII)


class MeterSettings(BaseModel):
    """What the configuration of every meter may say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    only: tuple[str, ...] = Field(
        (), description="Channels to publish, by their names; default: all that the meter sends."
    )

    @field_validator("only")
    @classmethod
    def _channels(cls, only: tuple[str, ...]) -> tuple[str, ...]:
        if strange := [name for name in only if name not in cls.names() and not _CODE.fullmatch(name)]:
            raise ValueError(
                f"no channel of a meter: {', '.join(strange)}; there are {', '.join(cls.names())}, and OBIS codes as "
                '"1-0:99.7.0" for what has no name here'
            )
        return only

    @classmethod
    def registers(cls) -> Iterable[Register]:
        """What this kind of meter may send, as far as it has a name."""
        return REGISTERS.values()

    @classmethod
    def names(cls) -> list[str]:
        return [register.name for register in cls.registers()]

    def channels(self) -> tuple[Channel, ...]:
        """Those of ``only``, or all that have a name."""
        return tuple(r.channel() for r in self.registers() if not self.only or r.name in self.only)

    def chosen(self, fields: dict[str, Value]) -> dict[str, Value]:
        """The fields that are to be published."""
        return {name: fields[name] for name in fields if name in self.only} if self.only else fields

    def reading(
        self, lines: Iterable[bytes], fields: Callable[[DataSets], dict[str, Value]], *, checked: bool
    ) -> list[Sample | Fault]:
        """What a readout says: a Sample, and a Fault for each line that is no data set.

        fields: what becomes of the data sets; checked: a checksum has told that the lines are as they were sent. Where
        there is none, such a line spoils the whole: what else was garbled in it cannot be seen.
        """
        sets, bad = data_sets(lines)
        faults = [Fault("syntax", "a line that is no data set", line[:SAMPLE]) for line in bad]
        if faults and not checked:
            return [*faults]
        chosen = self.chosen(fields(sets))
        return [*faults, Sample(chosen)] if chosen else [*faults]


def value(code: str, number: Decimal, unit: str) -> tuple[str, float | int] | None:
    """Name and value of a register as they are published; None where nothing tells what the number is.

    Of a register without a name here (or in another unit than its name stands for) the code is the name, "1-0:99.7.0".
    Without a unit as well it may be anything: a clock, a serial number. Values of past billing periods (``*F``) are
    not what the meter reads now, and give None too.
    """
    found = _CODE.fullmatch(code)
    if found is None or found[6] not in (None, "255"):
        return None
    medium, channel, c, d, e = found.group(1, 2, 3, 4, 5)
    if c in _PROFILES:
        return None
    tail = f"{c}.{d}.{'0' if e in (None, '255') else e}"
    ours = medium in (None, "1") and channel in (None, "0", "1")
    register = REGISTERS.get(tail if ours else f"{medium}-{channel}:{tail}")
    shown, power = UNITS.get(unit, (unit, 0))
    if register is not None and register.unit == shown:
        if not shown and register.device_class not in _FRACTION:
            return register.name, int(number)
        return register.name, float(number.scaleb(power))
    if register is None and not unit:
        return None
    return re.split(r"[*&]", code)[0], float(number.scaleb(power))


def data_sets(lines: Iterable[bytes]) -> tuple[DataSets, list[bytes]]:
    """Data sets ``code(value)(value)...`` of a readout, in order, and the lines that hold something else.

    A line may hold several of them, or the values of the one before (gas, in DSMR 2 and 3).
    """
    sets: DataSets = []
    bad: list[bytes] = []
    for line in lines:
        text, at = line.decode("latin-1").strip(), 0
        before = len(sets)
        while at < len(text) and (found := _DATA_SET.match(text, at)) and (found[1] or sets):
            if found[1]:
                sets.append((found[1], []))
            sets[-1][1].append(found[2])
            at = found.end()
        if at < len(text):
            del sets[before:]
            bad.append(line)
    return sets, bad


def measured(values: list[str]) -> tuple[Decimal, str] | None:
    """The number of a data set and its unit: the first value that has one, or the only one, without; else None."""
    for one in values:
        found = _NUMBER.fullmatch(one)
        if found and (found[2] or len(values) == 1):
            return Decimal(found[1]), found[2] or ""
    return None


def named(sets: DataSets) -> dict[str, Value]:
    """Names and values of all data sets that say what they measure; of two of the same name the first."""
    fields: dict[str, Value] = {}
    for code, values in sets:
        if (number := measured(values)) and (told := value(code, *number)):
            fields.setdefault(*told)
    return fields
