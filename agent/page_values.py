"""The latest values of all channels, and the numbers of the last minutes: what the status page draws."""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import orjson

from agent.model import Channel, Reading, Value

STEP = 2.0
"""Seconds between two points of a chart."""
POINTS = 150
"""Points of a chart: five minutes. 1.2 kB a channel."""
CHARTED = 256
"""Channels with a chart: 0.3 MB. Of the others the latest value is shown."""
CHANNELS = 64
"""Channels of one device that are shown."""
READINGS_KEPT = 32
"""Latest readings of a device between two looks: one device may send different channels in turn, as a GNSS receiver."""
LONGEST_TEXT = 120


class Shown(Protocol):
    """What is asked of a device (device.Device)."""

    @property
    def state(self) -> str: ...
    @property
    def channels(self) -> Sequence[Channel]: ...


class Series:
    """Numbers at equal steps, the last POINTS of them; NaN where there is none."""

    def __init__(self) -> None:
        self._points = array("d", [math.nan]) * POINTS

    def put(self, tick: int, value: float) -> None:
        self._points[tick % POINTS] = value

    def points(self, tick: int) -> list[float | None]:
        """The oldest first; ``tick`` is the latest. None: no number."""
        first = tick + 1
        ordered = (self._points[(first + index) % POINTS] for index in range(POINTS))
        # Six digits, as a chart of some pixels needs: half the bytes.
        return [None if math.isnan(value) else float(f"{value:.6g}") for value in ordered]


class Values:
    """Bounded in devices (those of the configuration), channels and points. ``step`` is called every STEP seconds."""

    def __init__(self, devices: Mapping[str, Shown], gauges: Mapping[str, Callable[[], float]]) -> None:
        """gauges: the agent's own charts, by name; each is asked once a step."""
        self._devices = devices
        self._gauges = gauges
        self._new: dict[str, deque[bytes]] = {}
        self._fields: dict[str, dict[str, Value]] = {}
        self._series: dict[tuple[str, str], Series] = {}
        self._own = {name: Series() for name in (*gauges, "rate")}
        self._taken = 0
        self._rate = 0.0
        self.tick = 0
        """Steps so far."""

    def take(self, readings: Sequence[Reading]) -> None:
        """Readings of one device. On the way of each: no more than keeping what is there already."""
        new = self._new.get(readings[0].device)
        if new is None:
            new = self._new[readings[0].device] = deque(maxlen=READINGS_KEPT)
        self._taken += len(readings)
        new.extend([reading.body for reading in readings[-READINGS_KEPT:]])

    def latest(self) -> dict[str, dict[str, dict[str, Any]]]:
        """By device and channel: value and unit."""
        self._read()
        shown: dict[str, dict[str, dict[str, Any]]] = {}
        for name, device in self._devices.items():
            units = {channel.name: channel.unit for channel in device.channels}
            fields = self._fields.get(name, {})
            shown[name] = {
                channel: {"value": fields.get(channel), "unit": units.get(channel, "")}
                for channel in list(dict.fromkeys([*units, *fields]))[:CHANNELS]
            }
        return shown

    def step(self) -> None:
        """One more point of each chart. A device that is not online has none: a line that goes on would lie."""
        self.tick += 1
        self._read()
        for gone in [name for name in self._fields if name not in self._devices]:
            del self._fields[gone]
        for key in [key for key in self._series if key[0] not in self._devices]:
            del self._series[key]
        self._rate, self._taken = self._taken / STEP, 0
        for name, value in self.charts().items():
            self._own[name].put(self.tick, value)
        here = {
            (name, channel): float(value)
            for name, fields in self._fields.items()
            if self._devices[name].state == "online"
            for channel, value in fields.items()
            if isinstance(value, int | float)
        }
        for key in here:
            if key not in self._series and len(self._series) < CHARTED:
                self._series[key] = Series()
        for key, series in self._series.items():
            series.put(self.tick, here.get(key, math.nan))

    def history(self) -> dict[str, Any]:
        """All charts: for who begins to look."""
        devices: dict[str, dict[str, list[float | None]]] = {}
        for (name, channel), series in self._series.items():
            devices.setdefault(name, {})[channel] = series.points(self.tick)
        return {
            "step_s": STEP,
            "points": POINTS,
            "tick": self.tick,
            "agent": {name: series.points(self.tick) for name, series in self._own.items()},
            "devices": devices,
        }

    def charts(self) -> dict[str, float]:
        """The agent's own charts: what they show now. ``rate``: readings a second in the last step."""
        return {**{name: gauge() for name, gauge in self._gauges.items()}, "rate": self._rate}

    def _read(self) -> None:
        for name, bodies in self._new.items():
            if bodies and name in self._devices:
                fields = self._fields.setdefault(name, {})
                for body in bodies:
                    for channel, value in _shown(orjson.loads(body).items()):
                        if channel in fields or len(fields) < CHANNELS:
                            fields[channel] = value
            bodies.clear()


def _shown(fields: Iterable[tuple[str, Value]]) -> Iterable[tuple[str, Value]]:
    for channel, value in fields:
        if isinstance(value, str) and len(value) > LONGEST_TEXT:
            yield channel, f"{value[: LONGEST_TEXT - 1]}…"
        else:
            yield channel, value
