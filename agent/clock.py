"""The one place that knows what time it is.

Readings are stamped with CLOCK_MONOTONIC, which no one steps; wall time is that stamp plus the offset between the two
clocks at the moment of sending: a reading taken before the clock was set carries the time at which it really was taken.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from agent.quantity import Duration

BUILT_NS = int(datetime(2026, 11, 24, tzinfo=UTC).timestamp()) * 1_000_000_000
"""The release date of this package: no true clock shows an earlier time."""

_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised to a reliable server

_JITTER_NS = 20_000
"""Two looks at two clocks are tens of nanoseconds apart, or 8 ms (measured) if the kernel puts us aside in between."""


class ClockSettings(BaseModel):
    """When the wall clock is believed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trust: Literal["auto", "always", "kernel"] = Field(
        "auto",
        description="\"auto\": synchronised by the kernel's word, or later than this package's release; "
        '"kernel": by the kernel\'s word alone; "always": never asked.',
    )
    hold: Duration = Field(0.0, description="How long readings wait for a clock that is believed.")


def kernel_synchronised() -> bool:
    """What adjtimex(2) answers. Containers, VMs whose host keeps the time and LANs without NTP never say yes."""
    # A zeroed timex (208 bytes on 64-bit Linux) asks and changes nothing; the state is the return value.
    # -1: a sandbox forbids the question, as ProtectClock= of systemd does.
    return ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)) not in (_TIME_ERROR, -1)


class Clock:
    """Monotonic stamps and what they are in wall time."""

    def __init__(
        self,
        settings: ClockSettings | None = None,
        *,
        mono_ns: Callable[[], int] = time.monotonic_ns,
        wall_now_ns: Callable[[], int] = time.time_ns,
        synchronised: Callable[[], bool] = kernel_synchronised,
    ) -> None:
        self._trust = (settings or ClockSettings()).trust
        self._wall_now_ns = wall_now_ns
        self._synchronised = synchronised
        self._offset = 0
        self.mono_ns = mono_ns

    @property
    def boot_id(self) -> str:
        """The kernel's id of this boot: a monotonic stamp means something only together with it (random(4))."""
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()

    def wall_ns(self, mono_ns: int) -> int:
        """Nanoseconds since the epoch at the moment of the stamp, by the clocks' present offset."""
        offset = self._wall_now_ns() - self.mono_ns()
        if abs(offset - self._offset) > _JITTER_NS:
            self._offset = self._look()
        # Within the jitter it stays as it is, so that readings a microsecond apart keep their order.
        return mono_ns + self._offset

    def _look(self) -> int:
        """The offset anew: the wall clock between two looks at the monotonic one, the closest of a few."""
        looks = []
        for _ in range(4):
            before, wall, after = self.mono_ns(), self._wall_now_ns(), self.mono_ns()
            looks.append((after - before, wall - (before + after) // 2))
            if after - before < _JITTER_NS:
                break
        return min(looks)[1]

    def trusted(self) -> bool:
        """Whether the wall clock is believed now."""
        if self._trust == "always":
            return True
        if self._trust == "auto" and self._wall_now_ns() >= BUILT_NS:
            return True
        return self._synchronised()


def rfc3339(wall_ns: int) -> str:
    """UTC with microseconds, "2026-11-24T00:37:00.123456Z" (RFC 3339, section 5.6)."""
    return datetime.fromtimestamp(wall_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + (
        f"{wall_ns // 1000 % 1_000_000:06d}Z"
    )
