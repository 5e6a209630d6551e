"""The demo's two serial devices: what they say, and a bad line now and then. On the event manager, without a thread."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from typing import Protocol

from agent.testing.garble import Garbler
from agent.testing.pty import Pty

CORRUPT_EVERY = 9
"""Every so many lines one is spoilt on the wire: a Fault is seen within ten seconds, and does not rule the view."""


class Weather:
    """A weather station: one JSON object a second. A day lasts ten minutes."""

    interval = 1.0
    device = "weather"

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def line(self, seconds: float) -> str:
        """What it says so many seconds after its start."""
        sun = math.sin(2 * math.pi * seconds / 600)
        values = {
            "temperature": round(18.5 + 6 * sun + self._rng.gauss(0, 0.05), 2),
            "humidity": round(62 - 15 * sun + self._rng.gauss(0, 0.2), 1),
            "pressure": round(1013.2 + 2.5 * math.sin(seconds / 240) + self._rng.gauss(0, 0.02), 2),
        }
        return json.dumps(values, separators=(",", ":"))


class Meter:
    """An electricity meter: key=value pairs every other second; its counter never goes back."""

    interval = 2.0
    device = "meter"

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._energy = 4711.0
        self._before = 0.0

    def line(self, seconds: float) -> str:
        """What it says so many seconds after its start."""
        load = 420 + 180 * math.sin(seconds / 45) + (1900 if seconds % 90 > 60 else 0)  # a kettle, now and then
        power = max(0.0, load + self._rng.gauss(0, 8))
        self._energy += power * (seconds - self._before) / 3.6e6
        self._before = seconds
        voltage = 230.5 + 1.2 * math.sin(seconds / 30) - power / 2500 + self._rng.gauss(0, 0.1)
        return f"energy={self._energy:.4f} power={power:.0f} voltage={voltage:.1f}"


class Source(Protocol):
    """What a device says."""

    device: str
    interval: float

    def line(self, seconds: float) -> str: ...


class Simulation:
    """One of them behind a pty: ``tick`` sends its next line, and now and then a spoilt one."""

    def __init__(self, source: Source, path: str, now: Callable[[], float], *, seed: int) -> None:
        self.source = source
        self.line = Pty(path)
        self.sent = 0
        self.spoilt = 0
        self._now = now
        self._begun = now()
        self._garble = Garbler(flips=0.08, drops=0.02, seed=seed)
        # Not all devices at once, and not the very first line of any.
        self._next_spoilt = CORRUPT_EVERY - 2 * seed

    def tick(self) -> None:
        """Say the next line, if the agent has the port open: a device does not wait for its reader."""
        self.line.read()
        if not self.line.ready:
            return
        data = self.source.line(self._now() - self._begun).encode()
        self.sent += 1
        if self.sent == self._next_spoilt:
            self._next_spoilt += CORRUPT_EVERY
            self.spoilt += 1
            # As a loose contact does: a stretch of the line is gone, some bits are wrong.
            data = self._garble(data[: len(data) // 2] + data[len(data) // 2 + 4 :])
        self.line.write(data + b"\r\n")
