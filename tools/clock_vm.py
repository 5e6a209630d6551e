"""What tools/clock-vm runs in its virtual machine: it SETS THE CLOCK. Nothing else should ever run it."""

from __future__ import annotations

import ctypes
import os
import select
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

from agent.clock import BUILT_NS, Clock, ClockSettings, Kernel
from agent.clock_watch import StepWatch
from agent.events import EventManager

SECOND = 1_000_000_000
DAY = 86_400
NEAR = 50_000_000  # ns: between setting a clock and looking at it, in an emulated machine

ADJ_MAXERROR, ADJ_ESTERROR, ADJ_STATUS, ADJ_SETOFFSET, ADJ_TICK = 0x4, 0x8, 0x10, 0x100, 0x4000  # linux/timex.h
ADJ_OFFSET_SINGLESHOT = 0x8001  # adjtime(3)
STA_PLL = 0x1  # and not STA_UNSYNC: what a time daemon says once it is sure
VOUCH = ADJ_STATUS | ADJ_MAXERROR | ADJ_ESTERROR

libc = ctypes.CDLL(None, use_errno=True)


def say(text: str) -> None:
    print(f"\nclock-vm: {text}", flush=True)


def adjtimex(modes: int, *, offset: int = 0, status: int = 0, seconds: int = 0, tick: int = 0) -> None:
    """As a time daemon calls it (adjtimex(2), 64 bits)."""
    timex = ctypes.create_string_buffer(512)
    struct.pack_into("I", timex, 0, modes)
    struct.pack_into("q", timex, 8, offset)
    struct.pack_into("i", timex, 40, status)
    struct.pack_into("q", timex, 72, seconds)
    struct.pack_into("q", timex, 88, tick)
    assert libc.adjtimex(timex) >= 0, os.strerror(ctypes.get_errno())


def set_to(seconds: float) -> None:
    time.clock_settime(time.CLOCK_REALTIME, seconds)


def wait(seconds: float) -> None:
    select.select([], [], [], seconds)


class Board:
    """The agent's clock, fed by the event of its watch alone, beside the truth."""

    def __init__(self) -> None:
        self.clock = Clock(ClockSettings(hold=60.0))
        self.watch = StepWatch()
        self.watch.start()
        assert self.watch.degraded is None, self.watch.degraded
        self.true_offset = 0
        self.events = 0

    def event(self) -> None:
        assert self.watch.read()
        self.events += 1

    def step(self, what: str, change: Callable[[], object], basis: str) -> None:
        """One change of the clock is one event, and what the clock then says is right."""
        before = self.events
        with EventManager() as manager:
            manager.create_socket_event(self.watch, on_readable=self.event, name="clock.set")
            assert manager.run_once(timeout=0) == 0, "an event before the clock was set"
            change()
            end = time.monotonic() + 10
            while self.events == before and time.monotonic() < end:
                manager.run_once(timeout=0.1)
            manager.run_once(timeout=0)
        assert self.events == before + 1, f"{what}: {self.events - before} events"
        error = self.clock.offset_ns - self.true_offset
        assert self.clock.basis == basis, f"{what}: {self.clock.basis}"
        assert abs(error) < NEAR, f"{what}: {error} ns off"
        say(f"{what}: one event, {self.clock.basis}, {error / 1e6:+.3f} ms off the truth")


def steps() -> None:
    set_to(1000.0)  # 1970, as a board without a battery clock boots
    board = Board()
    clock = board.clock
    stamp = clock.mono_ns()
    assert clock.basis == "none"
    assert clock.release_before() is not None
    assert not Kernel().synchronised()

    def synchronise() -> None:
        truth = BUILT_NS // SECOND + 500 * DAY
        board.true_offset = truth * SECOND - time.monotonic_ns()
        set_to(truth)

    board.step("1970, then the true time", synchronise, "plausible")
    assert clock.release_before() is None
    assert abs(clock.wall_ns(stamp) - (stamp + board.true_offset)) < NEAR
    board.step("a year back", lambda: set_to(time.time() - 365 * DAY), "holdover")
    board.step("to 1970", lambda: set_to(1000.0), "holdover")
    board.step("and right again", lambda: set_to((time.monotonic_ns() + board.true_offset) / SECOND), "plausible")
    board.true_offset -= 30 * SECOND
    board.step("-30 s", lambda: set_to(time.time() - 30), "plausible")
    board.true_offset += 30 * SECOND
    board.step("+30 s", lambda: set_to(time.time() + 30), "plausible")
    board.true_offset += 7 * SECOND
    board.step("+7 s by a time daemon", lambda: adjtimex(ADJ_SETOFFSET | VOUCH, seconds=7, status=STA_PLL), "kernel")

    # Slewing is on both clocks: no event, no other offset.
    count, offset = clock.steps, clock.offset_ns
    mono, raw = time.monotonic_ns(), time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
    adjtimex(ADJ_TICK, tick=11_000)
    wait(2.0)
    adjtimex(ADJ_TICK, tick=10_000)
    gained = time.monotonic_ns() - mono - (time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) - raw)
    adjtimex(ADJ_OFFSET_SINGLESHOT, offset=-300_000)
    wait(1.0)
    assert gained > 100_000_000, "the clock was not slewed at all"
    assert (clock.steps, clock.offset_ns, board.watch.read()) == (count, offset, False)
    say(f"slewed by {gained / 1e6:+.0f} ms: no event, the same offset")
    board.watch.close()


def the_kernels_word() -> None:
    """Setting the clock takes it back, in the same call; a time daemon gives it again."""
    clock = Clock(ClockSettings(trust="kernel"))
    adjtimex(VOUCH, status=STA_PLL)
    assert clock.basis == "kernel"
    set_to(time.time() + 30)
    assert not Kernel().synchronised()
    assert clock.basis == "holdover"
    adjtimex(VOUCH, status=STA_PLL)
    wait(0.2)
    assert clock.basis == "kernel"
    say("the kernel's word: gone with the step, back with the time daemon's")


def main() -> None:
    say(f"Linux {os.uname().release}, Python {sys.version.split()[0]}")
    steps()
    the_kernels_word()
    say("all as expected")


if __name__ == "__main__":
    if "outstation.clock_vm" not in Path("/proc/cmdline").read_text():
        sys.exit("this sets the machine's clock: tools/clock-vm runs it, in a virtual machine")
    main()
