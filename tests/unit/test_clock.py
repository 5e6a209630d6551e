"""Wall time is settled from the monotonic stamp by the offset of the moment, whatever the clock did in between."""

from __future__ import annotations

import pytest

from agent.clock import BUILT_NS, Clock, ClockSettings, kernel_synchronised, rfc3339

SECOND = 1_000_000_000


class Hands:
    """Both clocks of a board, to be set by hand."""

    def __init__(self, mono: int = 0, wall: int = 0, synchronised: bool = False) -> None:
        self.mono, self.wall, self.synchronised = mono, wall, synchronised

    def clock(self, trust: str = "auto") -> Clock:
        return Clock(
            ClockSettings(trust=trust),
            mono_ns=lambda: self.mono,
            wall_now_ns=lambda: self.wall,
            synchronised=lambda: self.synchronised,
        )


def test_a_reading_from_before_the_step_gets_the_time_at_which_it_was_taken() -> None:
    hands = Hands(mono=10 * SECOND, wall=0)  # booted in 1970
    clock = hands.clock()
    stamp = clock.mono_ns()
    hands.mono += 60 * SECOND
    hands.wall = BUILT_NS + 60 * SECOND  # the network came, and with it the time
    assert clock.wall_ns(stamp) == BUILT_NS


def test_being_put_aside_between_two_looks_moves_no_time() -> None:
    """The scheduler may take 8 ms between the look at one clock and the look at the other."""
    now = 10 * SECOND
    pauses = iter([0, 0, 0, 8_000_000, 0, 8_000_000, 0, 0, 0, 0])

    def wall() -> int:
        nonlocal now
        seen = BUILT_NS + now
        now += next(pauses)
        return seen

    clock = Clock(mono_ns=lambda: now, wall_now_ns=wall)
    assert [clock.wall_ns(10 * SECOND + n) - BUILT_NS - 10 * SECOND for n in range(4)] == [0, 1, 2, 3]


def test_a_slewed_clock_is_followed() -> None:
    hands = Hands(mono=10 * SECOND, wall=BUILT_NS)
    clock = hands.clock()
    assert clock.wall_ns(hands.mono) == BUILT_NS
    for _ in range(100):  # 500 ppm, the most that the kernel slews by
        hands.mono += 100_000_000
        hands.wall += 100_050_000
        assert abs(clock.wall_ns(hands.mono) - hands.wall) <= 20_000


@pytest.mark.parametrize(
    ("trust", "wall", "synchronised", "trusted"),
    [
        ("auto", BUILT_NS - 1, False, False),
        ("auto", BUILT_NS - 1, True, True),
        ("auto", BUILT_NS, False, True),
        ("kernel", BUILT_NS, False, False),
        ("kernel", 0, True, True),
        ("always", 0, False, True),
    ],
)
def test_whom_the_clock_believes(trust: str, wall: int, synchronised: bool, trusted: bool) -> None:
    assert Hands(wall=wall, synchronised=synchronised).clock(trust).trusted() is trusted


def test_the_kernel_answers() -> None:
    assert kernel_synchronised() in (True, False)


def test_boot_id_is_the_kernels() -> None:
    boot_id = Clock().boot_id
    assert len(boot_id) == 36
    assert Clock().boot_id == boot_id


@pytest.mark.parametrize(
    ("wall_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1_795_480_620_123_456_789, "2026-11-24T00:37:00.123456Z"),
        (999_999_999, "1970-01-01T00:00:00.999999Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
    ],
)
def test_rfc3339_cuts_below_the_microsecond(wall_ns: int, text: str) -> None:
    assert rfc3339(wall_ns) == text
