"""Readings as a SenML pack in JSON (RFC 8428). Pure.

A pack is a list of records, one a channel. The first of each reading carries its time and its number::

    [{"bn":"outstation/greenhouse-1/weather/","bt":1795478400.123456,"n":":seq","v":41},
     {"n":"temperature","u":"Cel","v":21.5},{"n":"humidity","u":"%RH","v":44.1}]

Numbers are given in the unit that SenML registers for the quantity, as it wants it: hPa become Pa.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import orjson

from agent.codec import Topics, WallClock, channel_topic, stamped
from agent.model import Channel, Reading

ABSOLUTE_S = 2**28
"""Section 4.5.3: seconds below this are relative to now, and not since 1970."""

# fmt: off
_SAME = [
    "m", "kg", "g", "s", "A", "K", "cd", "mol", "Hz", "rad", "sr", "N", "Pa", "J", "W", "C", "V", "F", "S", "Wb", "T",
    "H", "lm", "lx", "Bq", "Gy", "Sv", "kat", "l", "m/s", "l/s", "bit", "bit/s", "pH", "dB", "dBW", "S/m", "1/s",
    "1/min", "B", "VA", "VAs", "var", "vars",
]
# fmt: on

UNITS: dict[str, tuple[str, Decimal]] = {unit: (unit, Decimal(1)) for unit in _SAME} | {
    unit: (name, Decimal(factor))
    for unit, name, factor in (
        ("°C", "Cel", "1"),
        ("Ω", "Ohm", "1"),
        ("°", "deg", "1"),
        ("m²", "m2", "1"),
        ("m³", "m3", "1"),
        ("m/s²", "m/s2", "1"),
        ("m³/s", "m3/s", "1"),
        ("W/m²", "W/m2", "1"),
        ("L", "l", "1"),
        ("%", "/", "0.01"),  # "%" itself is not recommended
        ("ppm", "/", "0.000001"),
        ("hPa", "Pa", "100"),
        ("mbar", "Pa", "100"),
        ("kPa", "Pa", "1000"),
        ("bar", "Pa", "100000"),
        ("mV", "V", "0.001"),
        ("kV", "V", "1000"),
        ("mA", "A", "0.001"),
        ("mW", "W", "0.001"),
        ("kW", "W", "1000"),
        ("Wh", "J", "3600"),
        ("kWh", "J", "3600000"),
        ("GJ", "J", "1000000000"),
        ("kVA", "VA", "1000"),
        ("kVAh", "VAs", "3600000"),
        ("kvar", "var", "1000"),
        ("kvarh", "vars", "3600000"),
        ("kHz", "Hz", "1000"),
        ("MHz", "Hz", "1000000"),
        ("mm", "m", "0.001"),
        ("cm", "m", "0.01"),
        ("km", "m", "1000"),
        ("ms", "s", "0.001"),
        ("min", "s", "60"),
        ("h", "s", "3600"),
        ("rpm", "1/min", "1"),
        ("RPM", "1/min", "1"),
        ("B/s", "bit/s", "8"),
        ("µg/m³", "kg/m3", "0.000000001"),
        ("mg/m³", "kg/m3", "0.000001"),
    )
}
"""A channel's unit -> the name of RFC 8428, section 12.1, or RFC 8798, section 2, and what it is multiplied with."""

BY_CLASS = {("%", "humidity"): "%RH", ("%", "battery"): "%EL"}
"""Where the same unit has another name for what is measured, by Home Assistant's class of it."""

BY_NAME = {("°", "latitude"): "lat", ("°", "longitude"): "lon"}

_Unit = tuple[str, Decimal | None]  # None: as it is


def senml_unit(channel: Channel) -> _Unit | None:
    """Name and factor of a channel's unit; None: SenML has none for it."""
    own = BY_CLASS.get((channel.unit, channel.device_class or "")) or BY_NAME.get((channel.unit, channel.name))
    if own is not None:
        return own, None
    found = UNITS.get(channel.unit)
    return None if found is None else (found[0], None if found[1] == 1 else found[1])


def _scaled(value: float, factor: Decimal) -> float:
    """In decimal: 4.35 hPa are 435 Pa, and not 434.99999999999994."""
    scaled = Decimal(repr(value)) * factor
    return int(scaled) if scaled == scaled.to_integral_value() and abs(scaled) < 2**53 else float(scaled)


class SenmlCodec:
    """One pack. Beside the channels it has the records ``:seq`` and, where true, ``:resumed``, ``:unsynced``,
    ``:backfill``: names that no channel can have.

    channels: of a device, by its name.
    """

    def __init__(self, topics: Topics, channels: Callable[[str], Sequence[Channel]]) -> None:
        self._root = re.sub(r"[^A-Za-z0-9:./_-]", "_", topics.root).lstrip("-:./_")  # section 4.5.1
        self._channels = channels
        self._units: dict[str, tuple[Sequence[Channel], dict[str, _Unit]]] = {}  # one entry a device

    def encode(self, readings: Sequence[Reading], clock: WallClock, connected_mono_ns: int, array: bool) -> bytes:
        """One message: one pack, however many readings. Raises ValueError as ``JsonCodec.encode``."""
        pack: list[dict[str, Any]] = []
        base = {"bn": f"{self._root}/{readings[0].device}/"} if readings else {}
        for reading, wall_ns, marks in stamped(readings, clock, connected_mono_ns, array):
            micros = wall_ns // 1000
            # Without "bt" it is "now": better than a time since boot that a receiver would add to its own.
            time = {"bt": micros / 1e6} if micros >= ABSOLUTE_S * 1_000_000 else {}
            pack.append({**base, **time, "n": ":seq", "v": reading.seq})
            base = {}
            units = self._units_of(reading.device)
            for name, value in orjson.loads(reading.body).items():
                record: dict[str, Any] = {"n": channel_topic(name)}
                if isinstance(value, bool):
                    record["vb"] = value
                elif isinstance(value, str):
                    record["vs"] = value
                elif value is None:
                    continue  # a record has a value (section 4.2)
                else:
                    if (unit := units.get(name)) is not None:
                        record["u"], factor = unit
                        value = value if factor is None else _scaled(value, factor)
                    record["v"] = value
                pack.append(record)
            pack += [{"n": ":unsynced" if key == "clock" else f":{key}", "vb": True} for key in marks]
        return orjson.dumps(pack)

    def _units_of(self, device: str) -> dict[str, _Unit]:
        channels = self._channels(device)
        known = self._units.get(device)
        if known is None or known[0] is not channels:
            units = {channel.name: unit for channel in channels if (unit := senml_unit(channel)) is not None}
            known = self._units[device] = (channels, units)
        return known[1]
