"""The one place that knows what time it is.

Readings are stamped with CLOCK_MONOTONIC, which no one steps; wall time is that stamp plus the offset between the two
clocks at the moment of sending: a reading taken before the clock was set carries the time at which it really was taken.

On Linux the offset changes only when the clock is set, at a leap second and over a suspend: what NTP slews, it slews on
both clocks (timekeeping.c). So it is the offset that is believed or not, once, and time that passes changes nothing:
a wrong clock does not come true by waiting, nor does a true offset grow wrong when the clock is set to nonsense.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from agent.quantity import Duration

BUILT_NS = int(datetime(2026, 11, 24, tzinfo=UTC).timestamp()) * 1_000_000_000
"""The release date of this package: no true clock shows an earlier time."""

SAVED_TOLERANCE_NS = 2_000_000_000
"""How far below the saved time a true clock may be after a restart: a leap second, and the whole seconds in which a
battery clock counts. More would believe what a board without one restores at boot from a file that is a minute old."""

SET_BACK_NS = 26 * 3600 * 1_000_000_000
"""How far back a clock that was believed may be set and be believed again. The largest honest mistake is a wrong time
zone, from UTC-12 to UTC+14; what goes back further is a clock that has lost its memory."""

HOLDOVER_NS = 32_000 * 1_000_000_000
"""How long trust = "kernel" outlives the kernel's last yes: as long as the kernel's own yes outlives its last server.
Its estimate of the error grows by 500 ppm, up to 16 s (kernel/time/ntp.c: MAXFREQ, NTP_PHASE_LIMIT)."""

_ASK_NS = 100_000_000
"""How old the kernel's answer may be, for it changes without an event where a clock is slewed. It costs 2 us."""

_AT_ONCE = -1  # a monotonic time that is always past

_JITTER_NS = 20_000
"""Two looks at two clocks are tens of nanoseconds apart, or 8 ms (measured) if the kernel puts us aside in between."""

_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised to a reliable server

Basis = Literal["always", "kernel", "plausible", "holdover", "none"]
"""Why the time is believed: not asked; the kernel calls it synchronised; later than this release and the saved time;
the offset that was believed before the clock was set to something else; it is not."""


class ClockSettings(BaseModel):
    """When the wall clock is believed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trust: Literal["auto", "always", "kernel"] = Field(
        "auto",
        description="\"auto\": synchronised by the kernel's word, or later than this package's release and the last "
        'time saved in the outbox; "kernel": by the kernel\'s word alone; "always": never asked.',
    )
    hold: Duration = Field(
        0.0,
        description="How long readings wait for a clock that is believed; "
        'then they go out marked `"clock":"unsynced"`.',
    )


class Kernel:
    """Asks adjtimex(2) whether something keeps the clock true. It sets nothing, and needs no privilege."""

    def __init__(self, adjtimex: Callable[[ctypes.Array[ctypes.c_uint]], int] | None = None) -> None:
        self._adjtimex = adjtimex or ctypes.CDLL(None, use_errno=True).adjtimex
        self._timex = (ctypes.c_uint * 128)()  # struct timex has 208 bytes at most; its first word says what to set

    def synchronised(self) -> bool:
        """False also where the kernel cannot know: containers, VMs whose host keeps the time, LANs without NTP."""
        return self._ask() not in (_TIME_ERROR, -1)

    @property
    def refusal(self) -> str | None:
        """Why it may not be asked (ProtectClock= of systemd, say) and never says yes. None: it may."""
        return f"adjtimex: {os.strerror(ctypes.get_errno())}" if self._ask() == -1 else None

    def _ask(self) -> int:
        self._timex[0] = 0
        return self._adjtimex(self._timex)


class Clock:
    """Monotonic stamps and what they are in wall time. For the loop's thread alone."""

    def __init__(
        self,
        settings: ClockSettings | None = None,
        *,
        mono_ns: Callable[[], int] = time.monotonic_ns,
        wall_now_ns: Callable[[], int] = time.time_ns,
        synchronised: Callable[[], bool] | None = None,
    ) -> None:
        settings = settings or ClockSettings()
        self._trust = settings.trust
        self._hold_ns = int(settings.hold * 1_000_000_000)
        self._wall_now_ns = wall_now_ns
        self._synchronised = synchronised or Kernel().synchronised
        self._boot_id = ""
        self._saved_ns = 0
        self._adopted_ns: int | None = None  # the offset of a former process of this boot
        self._looked = False
        self._raw = 0  # the offset that the clocks show
        self._offset = 0  # the offset by which stamps are settled
        self._floor: int | None = None  # the least offset that is plausible; None: nothing judged yet
        self._known = False  # _offset was believed, once in this boot
        self._until = 0  # monotonic ns: end of the holdover under "kernel"
        self._due = _AT_ONCE  # monotonic ns: when to judge again, though nothing has moved
        self._low = self._high = 0  # what the clocks' offset lies between unless the clock was set
        self._basis: Basis = "none"
        self._trusted = False
        self.steps = 0
        """How often the clock was seen to be set since the start."""
        self.last_step_ns = 0
        """By how much the last time, forward or (negative) back."""
        self.mono_ns = mono_ns

    # -- what a former process knew -----------------------------------------------------------------------------------

    def remember(self, saved_wall_ns: int) -> None:
        """A time that was trusted earlier, from the outbox: the true time is later. What goes behind it is dropped."""
        self._saved_ns = saved_wall_ns
        self._floor, self._due = None, _AT_ONCE

    def adopt(self, offset_ns: int, trusted: bool) -> None:
        """What was settled by earlier in this same boot (equal ``boot_id``): it goes on if the clocks show nonsense.

        An offset that was not trusted says no more than the clocks themselves do, and is ignored.
        """
        self._adopted_ns = offset_ns if trusted else None
        self._floor, self._due = None, _AT_ONCE

    # -- what time it is ----------------------------------------------------------------------------------------------
    #
    # Each of these looks at the clocks first, twice 50 ns, and finds nearly always that nothing has changed. That look
    # is written out where it comes with every reading or message: a call of its own costs as much again.

    @property
    def boot_id(self) -> str:
        """The kernel's id of this boot: a monotonic stamp means something only together with it (random(4))."""
        if not self._boot_id:
            self._boot_id = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return self._boot_id

    def wall_ns(self, mono_ns: int) -> int:
        """Nanoseconds since the epoch at the moment of the stamp, by the offset that is right now."""
        now = self.mono_ns()
        if not (now < self._due and self._low < self._wall_now_ns() - now < self._high):
            self._settle()
        return mono_ns + self._offset

    def trusted(self) -> bool:
        """Whether what ``wall_ns`` says is believed."""
        now = self.mono_ns()
        if not (now < self._due and self._low < self._wall_now_ns() - now < self._high):
            self._settle()
        return self._trusted

    def settle(self) -> tuple[int, bool]:
        """``offset_ns`` and ``trusted()`` of one and the same moment: for all readings of one message.

        With ``boot_id`` it is also what the outbox keeps, for a later process of the same boot to ``adopt``.
        """
        now = self.mono_ns()
        if not (now < self._due and self._low < self._wall_now_ns() - now < self._high):
            self._settle()
        return self._offset, self._trusted

    @property
    def offset_ns(self) -> int:
        """Wall minus monotonic time, by which ``wall_ns`` settles."""
        return self.settle()[0]

    @property
    def basis(self) -> Basis:
        """Why the time is believed, or that it is not."""
        self.settle()
        return self._basis

    def release_before(self) -> int | None:
        """Monotonic ns up to which readings may be sent; younger ones wait for a true clock. None: all may be sent.

        A clock that becomes true without a step (by slewing) makes no event: who holds something back calls this again
        after a while.
        """
        if not self._hold_ns or self.trusted():
            return None
        return self.mono_ns() - self._hold_ns

    # -- how it is known ----------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Look closely, and judge: the clock was set, or the kernel's answer is old, or it is the first time."""
        raw, doubt = self._measure()
        now = self.mono_ns()
        moved = raw - self._raw
        if not self._looked:
            self._raw, self._looked = raw, True
        elif abs(moved) > max(doubt, _JITTER_NS):
            # Within the jitter it stays as it is, so that readings a microsecond apart keep their order.
            self._raw = raw
            self.steps += 1
            self.last_step_ns = moved
        if self._floor is None:
            self._begin(now)
        self._low, self._high = self._raw - _JITTER_NS, self._raw + _JITTER_NS
        self._due = now + _ASK_NS
        self._judge(now)

    def _measure(self) -> tuple[int, int]:
        """The offset that the clocks show, and what it may be off by: the wall clock between two looks at the other."""
        looks = []
        for _ in range(4):
            before, wall, after = self.mono_ns(), self._wall_now_ns(), self.mono_ns()
            looks.append((after - before, wall - (before + after) // 2))
            if after - before < _JITTER_NS:
                break
        doubt, raw = min(looks)
        return raw, doubt

    def _begin(self, now: int) -> None:
        """What is plausible, by what was written down. What this process has seen since stays if it fits that."""
        adopted = self._adopted_ns
        if adopted is None:
            # By now the true time is later than this release, and than what was saved.
            floor = max(BUILT_NS, self._saved_ns - SAVED_TOLERANCE_NS) - now
        else:
            floor = self._behind(adopted, now)
        if not (self._known and self._offset >= floor):
            self._known = adopted is not None
            if adopted is not None:
                self._offset, self._until = adopted, now + HOLDOVER_NS
        self._floor = self._behind(self._offset, now) if self._known else floor

    def _behind(self, offset: int, now: int) -> int:
        """The floor below an offset that was believed."""
        return max(BUILT_NS - now, offset - SET_BACK_NS)

    def _judge(self, now: int) -> None:
        """Which offset is settled by, and why."""
        basis = self._believe()
        if basis != "none":
            if basis == "kernel" or not self._known:
                # Not raised by a step forward that is merely plausible: a year too far must be possible to put right.
                self._floor = self._behind(self._raw, now)
            self._offset = self._raw
            self._known = True
            self._until = now + HOLDOVER_NS
        elif not self._known:
            self._offset = self._raw  # the best there is
        elif self._trust == "auto" or now < self._until:
            basis = "holdover"
        # else the last known offset stays, for there is no better one, but nobody vouches for it any more.
        self._basis = basis
        self._trusted = basis != "none"

    def _believe(self) -> Basis:
        """Whether the offset that the clocks show is the true one."""
        if self._trust == "always":
            return "always"
        if self._synchronised():
            return "kernel"
        if self._trust == "auto" and self._floor is not None and self._raw >= self._floor:
            return "plausible"
        return "none"


def rfc3339(wall_ns: int) -> str:
    """UTC with microseconds, "2026-11-24T00:37:00.123456Z" (RFC 3339, section 5.6)."""
    return datetime.fromtimestamp(wall_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + (
        f"{wall_ns // 1000 % 1_000_000:06d}Z"
    )
