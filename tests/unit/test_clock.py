"""Wall time is settled from the stamp by an offset that is believed or not, whatever the clock does meanwhile."""

from __future__ import annotations

import ctypes
import errno
import time
from collections.abc import Iterator

import pytest

from agent.clock import (
    BUILT_NS,
    HOLDOVER_NS,
    SAVED_TOLERANCE_NS,
    SET_BACK_NS,
    Basis,
    Clock,
    ClockSettings,
    Kernel,
    rfc3339,
)

MS = 1_000_000
SECOND = 1_000 * MS
DAY = 86_400 * SECOND
YEAR = 365 * DAY

NOW = BUILT_NS + 400 * DAY
"""The true time at the start of a test: more than a year after the release, so that a year back is after it too."""


class Hands:
    """Both clocks of a board, to be set by hand. It has been up for ten seconds."""

    def __init__(self, wall: int = NOW, *, synchronised: bool = False, mono: int = 10 * SECOND) -> None:
        self.mono, self.wall, self.synchronised = mono, wall, synchronised
        self.asked = 0

    def clock(self, trust: str = "auto", hold: str = "0s") -> Clock:
        def synchronised() -> bool:
            self.asked += 1
            return self.synchronised

        return Clock(
            ClockSettings(trust=trust, hold=hold),
            mono_ns=lambda: self.mono,
            wall_now_ns=lambda: self.wall,
            synchronised=synchronised,
        )

    def wait(self, ns: int) -> None:
        self.mono += ns
        self.wall += ns

    def set(self, wall: int, *, synchronised: bool = False) -> None:
        """As the kernel does it: setting the clock makes it unsynchronised, unless who sets it says otherwise."""
        self.wall, self.synchronised = wall, synchronised


def shown(clock: Clock) -> tuple[int, Basis]:
    """What time the clock says it is, and why."""
    return clock.wall_ns(clock.mono_ns()), clock.basis


# ---- whom it believes


@pytest.mark.parametrize(
    ("trust", "wall", "synchronised", "basis"),
    [
        ("auto", BUILT_NS - 1, False, "none"),
        ("auto", BUILT_NS - 1, True, "kernel"),
        ("auto", BUILT_NS, False, "plausible"),
        ("auto", BUILT_NS, True, "kernel"),
        ("kernel", NOW, False, "none"),
        ("kernel", 0, True, "kernel"),
        ("always", 0, False, "always"),
    ],
)
def test_whom_the_clock_believes(trust: str, wall: int, synchronised: bool, basis: Basis) -> None:
    clock = Hands(wall, synchronised=synchronised).clock(trust)
    assert clock.basis == basis
    assert clock.trusted() is (basis != "none")
    assert clock.settle() == (wall - 10 * SECOND, basis != "none")
    assert clock.offset_ns == wall - 10 * SECOND


def test_always_asks_nobody() -> None:
    hands = Hands(0)
    clock = hands.clock("always")
    assert shown(clock) == (0, "always")
    hands.set(NOW)
    assert shown(clock) == (NOW, "always")
    hands.set(7)
    assert shown(clock) == (7, "always")
    assert hands.asked == 0


@pytest.mark.parametrize(
    ("below", "basis"),
    [(-1, "plausible"), (0, "plausible"), (SAVED_TOLERANCE_NS, "plausible"), (SAVED_TOLERANCE_NS + 1, "none")],
)
def test_no_true_clock_is_earlier_than_what_was_saved(below: int, basis: Basis) -> None:
    """Later than the release, but restored at boot from a file that is older than the outbox."""
    clock = Hands(NOW - below).clock()
    clock.remember(NOW)
    assert shown(clock) == (NOW - below, basis)


def test_the_tolerance_is_a_leap_second_and_a_second_of_the_battery_clock() -> None:
    """And stays below what a time daemon's file is behind by: systemd-timesyncd writes its own once a minute."""
    assert 2 * SECOND <= SAVED_TOLERANCE_NS < 60 * SECOND


def test_what_was_saved_does_not_speak_against_the_kernel() -> None:
    clock = Hands(NOW - DAY, synchronised=True).clock()
    clock.remember(NOW)
    assert clock.basis == "kernel"


def test_what_was_saved_may_become_known_after_the_first_look() -> None:
    clock = Hands(NOW - DAY).clock()
    assert clock.trusted()
    clock.remember(NOW)
    assert shown(clock) == (NOW - DAY, "none")


def test_a_wrong_clock_does_not_come_true_by_waiting() -> None:
    hands = Hands(NOW - 600 * SECOND)  # ten minutes behind what was saved; how long the power was off, nobody knows
    clock = hands.clock()
    clock.remember(NOW)
    assert not clock.trusted()
    hands.wait(3600 * SECOND)
    assert not clock.trusted()
    hands.set(NOW + 3600 * SECOND)  # an hour has passed since the start, so this is just possible
    assert clock.trusted()


def test_a_clock_set_to_less_than_the_time_that_has_passed_is_not_believed() -> None:
    hands = Hands(0)
    clock = hands.clock()
    clock.remember(NOW)
    assert not clock.trusted()
    hands.wait(3600 * SECOND)
    hands.set(NOW + 3500 * SECOND)
    assert not clock.trusted()


# ---- the clock is set: from what is not believed to what is


@pytest.mark.parametrize(
    "wrong", [0, BUILT_NS - DAY, NOW - DAY], ids=["1970", "before the release", "before what was saved"]
)
@pytest.mark.parametrize("trust", ["auto", "kernel"])
def test_a_reading_from_before_the_step_gets_the_time_at_which_it_was_taken(trust: str, wrong: int) -> None:
    hands = Hands(wrong)
    clock = hands.clock(trust)
    clock.remember(NOW)
    stamp = clock.mono_ns()
    assert clock.wall_ns(stamp) == wrong
    assert not clock.trusted()
    hands.wait(60 * SECOND)
    hands.set(NOW + 60 * SECOND, synchronised=trust == "kernel")  # the network came, and with it the time
    assert clock.wall_ns(stamp) == NOW
    assert clock.trusted()
    assert (clock.steps, clock.last_step_ns) == (1, NOW - wrong)


def test_a_kernel_that_says_so_without_a_step_is_heard_within_a_tenth_of_a_second() -> None:
    hands = Hands()
    clock = hands.clock("kernel")
    assert not clock.trusted()
    hands.synchronised = True
    hands.wait(100 * MS)
    assert clock.trusted()
    assert clock.steps == 0


@pytest.mark.parametrize("trust", ["auto", "kernel"])
def test_the_kernel_is_asked_ten_times_a_second_at_most(trust: str) -> None:
    hands = Hands()
    clock = hands.clock(trust)
    for _ in range(10_000):
        clock.trusted()
        clock.wall_ns(clock.mono_ns())
        hands.wait(MS // 10)
    assert hands.asked == 10


# ---- the clock was believed, and is set to nonsense


@pytest.mark.parametrize(
    "nonsense", [0, NOW - YEAR, NOW - SET_BACK_NS - 1], ids=["1970", "a year back", "27 hours back"]
)
def test_a_true_offset_outlives_a_clock_that_is_set_to_nonsense(nonsense: int) -> None:
    hands = Hands()
    clock = hands.clock()
    early = clock.mono_ns()
    assert shown(clock) == (NOW, "plausible")
    hands.set(nonsense)
    assert shown(clock) == (NOW, "holdover")
    assert clock.trusted()
    hands.wait(30 * DAY)
    assert shown(clock) == (NOW + 30 * DAY, "holdover")
    assert clock.wall_ns(early) == NOW
    assert clock.steps == 1
    hands.set(NOW + 30 * DAY)
    assert shown(clock) == (NOW + 30 * DAY, "plausible")


@pytest.mark.parametrize("step", [-SET_BACK_NS, -3600 * SECOND, -30 * SECOND, -SECOND, -MS, MS, 30 * SECOND, YEAR])
def test_a_step_to_what_may_be_true_is_believed(step: int) -> None:
    """A person who mends the clock or its time zone, a time server, a resume from suspend."""
    hands = Hands()
    clock = hands.clock()
    clock.remember(NOW)
    assert clock.trusted()
    hands.set(NOW + step)
    assert shown(clock) == (NOW + step, "plausible")
    assert clock.last_step_ns == step


def test_a_year_too_far_can_be_put_right() -> None:
    hands = Hands()
    clock = hands.clock()
    assert clock.trusted()
    hands.set(NOW + YEAR)
    assert shown(clock) == (NOW + YEAR, "plausible")
    hands.set(NOW)
    assert shown(clock) == (NOW, "plausible")


def test_small_steps_back_do_not_add_up() -> None:
    hands = Hands()
    clock = hands.clock()
    assert clock.trusted()
    hands.set(NOW - SET_BACK_NS)
    assert clock.basis == "plausible"
    hands.set(NOW - SET_BACK_NS - SECOND)
    assert shown(clock) == (NOW - SET_BACK_NS, "holdover")


def test_no_step_back_goes_behind_the_release() -> None:
    hands = Hands(BUILT_NS + 3600 * SECOND)
    clock = hands.clock()
    assert clock.trusted()
    hands.set(BUILT_NS - 1)
    assert shown(clock) == (BUILT_NS + 3600 * SECOND, "holdover")


def test_the_release_is_a_date_and_not_how_long_the_board_has_been_up() -> None:
    hands = Hands(BUILT_NS + 3600 * SECOND, mono=10 * DAY)
    clock = hands.clock()
    assert clock.trusted()
    hands.set(BUILT_NS)
    assert shown(clock) == (BUILT_NS, "plausible")


def test_the_kernels_word_stands_above_what_was_plausible_before() -> None:
    hands = Hands(NOW - 3 * DAY)  # three days behind: restored from a file at boot
    clock = hands.clock()
    assert clock.basis == "plausible"
    hands.set(NOW, synchronised=True)
    assert shown(clock) == (NOW, "kernel")
    hands.set(NOW - 3 * DAY)
    assert shown(clock) == (NOW, "holdover")
    hands.set(NOW - 3 * DAY, synchronised=True)  # as the kernel says so
    hands.wait(100 * MS)
    assert shown(clock) == (NOW - 3 * DAY + 100 * MS, "kernel")


def test_a_synchronised_clock_that_is_set_is_believed_once_the_kernel_says_so_again() -> None:
    """chrony and ntpd set the clock first, which makes it unsynchronised, and vouch for it later."""
    hands = Hands(synchronised=True)
    clock = hands.clock("kernel")
    assert clock.basis == "kernel"
    hands.set(NOW + 30 * SECOND)
    assert shown(clock) == (NOW, "holdover")
    hands.synchronised = True
    hands.wait(SECOND)
    assert shown(clock) == (NOW + 31 * SECOND, "kernel")


def test_the_kernels_word_is_good_for_nine_hours() -> None:
    hands = Hands(synchronised=True)
    clock = hands.clock("kernel")
    assert clock.trusted()
    hands.set(0)
    hands.wait(HOLDOVER_NS - SECOND)
    assert shown(clock) == (NOW + HOLDOVER_NS - SECOND, "holdover")
    hands.wait(SECOND)
    assert shown(clock) == (NOW + HOLDOVER_NS, "none"), "not vouched for any more, and still the best guess"
    assert not clock.trusted()


# ---- a former process of the same boot, of another boot


@pytest.mark.parametrize("trust", ["auto", "kernel"])
@pytest.mark.parametrize("order", ["remember first", "adopt first"])
def test_a_restart_within_a_boot_goes_on_by_the_true_offset(trust: str, order: str) -> None:
    hands = Hands(0)  # set to 1970 while no agent ran
    clock = hands.clock(trust)
    if order == "adopt first":
        clock.adopt(NOW - 10 * SECOND, True)
    clock.remember(NOW - SECOND)
    if order == "remember first":
        clock.adopt(NOW - 10 * SECOND, True)
    assert shown(clock) == (NOW, "holdover")
    assert clock.settle() == (NOW - 10 * SECOND, True)


def test_a_restart_within_a_boot_follows_a_clock_that_was_set_right_meanwhile() -> None:
    clock = Hands(NOW + 3 * DAY).clock()
    clock.adopt(NOW - 10 * SECOND, True)
    assert shown(clock) == (NOW + 3 * DAY, "plausible")
    clock = Hands(NOW - 30 * SECOND).clock()
    clock.remember(NOW - SECOND)
    clock.adopt(NOW - 10 * SECOND, True)
    assert shown(clock) == (NOW - 30 * SECOND, "plausible"), "half a minute back is a correction, whatever was saved"


def test_an_offset_that_was_never_true_is_not_adopted() -> None:
    clock = Hands(1000 * SECOND).clock()
    clock.adopt(500 * SECOND, False)
    assert shown(clock) == (1000 * SECOND, "none")


def test_another_boot_begins_with_what_was_saved_alone() -> None:
    """Its monotonic clock begins anew: an offset of the boot before means nothing."""
    hands = Hands(NOW - YEAR)
    clock = hands.clock()
    clock.remember(NOW)
    assert shown(clock) == (NOW - YEAR, "none")
    hands.set(NOW)
    assert shown(clock) == (NOW, "plausible")


def test_a_restart_within_a_boot_does_not_fall_for_what_was_plausible_before_the_file_was_open() -> None:
    clock = Hands(NOW - YEAR).clock()
    assert shown(clock) == (NOW - YEAR, "plausible")
    clock.remember(NOW - SECOND)
    clock.adopt(NOW - 10 * SECOND, True)
    assert shown(clock) == (NOW, "holdover")


@pytest.mark.parametrize("adopted", [True, False])
def test_a_file_that_opens_late_takes_nothing_away(adopted: bool) -> None:
    """The disk comes back after hours: what this process has seen since is newer than what was written."""
    hands = Hands(NOW - 3 * DAY)
    clock = hands.clock()
    assert clock.trusted()
    hands.set(NOW, synchronised=True)
    assert clock.basis == "kernel"
    hands.set(0)
    assert shown(clock) == (NOW, "holdover")
    clock.remember(NOW - 3 * DAY)
    if adopted:
        clock.adopt(NOW - 3 * DAY - 10 * SECOND, True)
    assert shown(clock) == (NOW, "holdover")
    hands.set(NOW - 3600 * SECOND)
    assert shown(clock) == (NOW - 3600 * SECOND, "plausible")
    assert clock.steps == 3


def test_what_is_written_down_late_does_not_narrow_what_may_be_put_right() -> None:
    hands = Hands()
    clock = hands.clock()
    assert clock.trusted()
    clock.remember(NOW - SECOND)
    assert clock.trusted()
    hands.set(NOW - 30 * SECOND)
    assert shown(clock) == (NOW - 30 * SECOND, "plausible")


def test_a_true_offset_may_become_known_after_the_first_look() -> None:
    clock = Hands(0).clock()
    assert not clock.trusted()
    clock.adopt(NOW - 10 * SECOND, True)
    assert shown(clock) == (NOW, "holdover")


def test_always_follows_the_clock_even_where_another_offset_was_true() -> None:
    clock = Hands(0).clock("always")
    clock.adopt(NOW, True)
    assert shown(clock) == (0, "always")


# ---- waiting for a true clock


def test_nothing_is_held_unless_it_is_asked_for() -> None:
    assert Hands(0).clock(hold="0s").release_before() is None


def test_readings_wait_for_a_true_clock_for_as_long_as_hold_says() -> None:
    hands = Hands(0, mono=1000 * SECOND)
    clock = hands.clock(hold="2m")
    assert clock.release_before() == 880 * SECOND
    hands.wait(60 * SECOND)
    assert clock.release_before() == 940 * SECOND
    hands.set(NOW)
    assert clock.release_before() is None
    hands.set(0)
    assert clock.release_before() is None, "by the offset that was true"


def test_nothing_is_held_that_always_trusts() -> None:
    assert Hands(0).clock("always", hold="2m").release_before() is None


def test_who_asks_again_hears_that_the_clock_has_come_true_without_a_step() -> None:
    hands = Hands()
    clock = hands.clock("kernel", hold="2m")
    assert clock.release_before() is not None
    hands.synchronised = True
    hands.wait(SECOND)
    assert clock.release_before() is None


# ---- looking at two clocks


def test_being_put_aside_between_two_looks_moves_no_time() -> None:
    """The scheduler may take 8 ms between the look at one clock and the look at the other."""
    now = 10 * SECOND
    pauses = iter([0, 0, 0, 8 * MS, 8 * MS, 8 * MS, 8 * MS, 8 * MS, 8 * MS, 0])

    def wall() -> int:
        nonlocal now
        seen = NOW + now
        now += next(pauses)
        return seen

    clock = Clock(mono_ns=lambda: now, wall_now_ns=wall, synchronised=lambda: False)
    assert [clock.wall_ns(10 * SECOND + n) - NOW - 10 * SECOND for n in range(4)] == [0, 1, 2, 3]
    assert clock.steps == 0
    assert next(pauses, None) is not None, "the clocks were looked at more often than this test thinks"


def test_being_put_aside_in_the_first_look_of_all_moves_no_time_either() -> None:
    now = 10 * SECOND
    pauses = iter([8 * MS, 0, 0])

    def wall() -> int:
        nonlocal now
        seen = NOW + now
        now += next(pauses)
        return seen

    assert Clock(mono_ns=lambda: now, wall_now_ns=wall, synchronised=lambda: False).offset_ns == NOW


def test_a_slow_board_looks_at_its_clocks_in_turn() -> None:
    """5 us for each: the wall clock's time is then halfway between those of the two looks at the other."""
    now = 10 * SECOND

    def mono() -> int:
        nonlocal now
        now += 5_000
        return now

    assert Clock(mono_ns=mono, wall_now_ns=lambda: NOW + mono(), synchronised=lambda: False).offset_ns == NOW


def test_what_is_within_the_jitter_is_no_step() -> None:
    hands = Hands()
    clock = hands.clock()
    assert clock.offset_ns == NOW - 10 * SECOND
    for _ in range(10):
        hands.wait(SECOND)
        hands.wall += 1_999
        assert clock.offset_ns == NOW - 10 * SECOND
    assert clock.steps == 0


def test_offsets_that_creep_are_followed() -> None:
    """Not on Linux, which slews both clocks; where two clocks are slewed apart it is by 500 ppm at most."""
    hands = Hands()
    clock = hands.clock()
    assert clock.wall_ns(hands.mono) == NOW
    for _ in range(100):
        hands.mono += 100_000_000
        hands.wall += 100_050_000
        assert abs(clock.wall_ns(hands.mono) - hands.wall) <= 20_000


# ---- the kernel


def answers(*results: int) -> tuple[Kernel, list[int]]:
    """A kernel that gives these answers and scribbles over the question, and what it was asked (0: to set nothing)."""
    left: Iterator[int] = iter(results)
    modes: list[int] = []

    def adjtimex(timex: ctypes.Array[ctypes.c_uint]) -> int:
        modes.append(timex[0])
        timex[0] = 0x2000
        result = next(left)
        if result == -1:
            ctypes.set_errno(errno.EPERM)
        return result

    return Kernel(adjtimex), modes


def test_every_answer_but_error_and_refusal_means_synchronised() -> None:
    kernel, modes = answers(0, 1, 2, 3, 4, 5, -1)  # TIME_OK, INS, DEL, OOP, WAIT, ERROR (adjtimex(2))
    assert [kernel.synchronised() for _ in range(7)] == [True, True, True, True, True, False, False]
    assert modes == [0] * 7, "it only asks: any other value would set something"


def test_a_refusal_is_told_with_its_reason() -> None:
    kernel, _ = answers(-1, 5)
    assert kernel.refusal == "adjtimex: Operation not permitted"
    assert kernel.refusal is None


def test_the_kernel_answers() -> None:
    kernel = Kernel()
    assert kernel.refusal is None
    assert kernel.synchronised() in (True, False)


def test_the_clock_of_this_machine() -> None:
    clock = Clock()
    before = time.time_ns()
    now = clock.wall_ns(clock.mono_ns())
    after = time.time_ns()
    assert before - 20_000 <= now <= after + 20_000
    assert clock.trusted()


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
