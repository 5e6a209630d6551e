"""A clock that is set to anything, at any time: what was read keeps its true time, and its order."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from agent.clock import BUILT_NS, SET_BACK_NS, Clock, ClockSettings

SECOND = 1_000_000_000
DAY = 86_400 * SECOND
TRUE = BUILT_NS + 1000 * DAY
"""The true time when the monotonic clock was 0."""
SAVED = TRUE - 10 * DAY


def between(first: int, last: int) -> st.SearchStrategy[int]:
    """Nanoseconds, in whole seconds: what differs by less than 20 us counts as the same."""
    return st.integers(first // SECOND, last // SECOND).map(lambda seconds: seconds * SECOND)


wrong = st.one_of(
    between(0, 10 * DAY),  # 1970
    between(BUILT_NS - 3000 * DAY, BUILT_NS - SET_BACK_NS),
    between(BUILT_NS, SAVED - 3 * DAY),  # later than the release, earlier than what was saved
)
"""What the clock shows when the monotonic one is 0, where it is not to be believed."""

anything = st.one_of(wrong, between(TRUE - 400 * DAY, TRUE + 400 * DAY), st.just(TRUE))

waits = st.integers(0, 100_000 * SECOND)


@dataclass
class Board:
    """A board whose clock is set, and which takes readings."""

    offset: int
    synchronised: bool = False
    mono: int = 0
    stamps: list[int] = field(default_factory=list)

    def clock(self, trust: str, hold: float = 0.0) -> Clock:
        return Clock(
            ClockSettings(trust=trust, hold=hold),
            mono_ns=lambda: self.mono,
            wall_now_ns=lambda: self.mono + self.offset,
            synchronised=lambda: self.synchronised,
        )

    def read(self, waits: list[int]) -> None:
        for wait in waits:
            self.mono += wait
            self.stamps.append(self.mono)


@given(
    trust=st.sampled_from(["auto", "kernel"]),
    steps=st.lists(st.tuples(wrong, st.lists(waits, max_size=5)), min_size=1, max_size=5),
    look=st.booleans(),
    after=st.lists(st.tuples(wrong, st.lists(waits, max_size=5)), max_size=5),
)
def test_what_was_read_before_the_clock_came_true_gets_its_true_time_and_keeps_it(
    trust: str, steps: list[tuple[int, list[int]]], look: bool, after: list[tuple[int, list[int]]]
) -> None:
    board = Board(offset=steps[0][0])
    clock = board.clock(trust, hold=60.0)
    clock.remember(SAVED)
    for offset, taken in steps:
        board.offset = offset
        board.read(taken)
        if look:
            assert not clock.trusted()
            assert clock.release_before() == board.mono - 60 * SECOND
            assert clock.wall_ns(board.mono) == board.mono + offset
    board.offset, board.synchronised = TRUE, trust == "kernel"
    board.read([SECOND])
    assert clock.trusted()
    # From here on nothing that the clock is set to makes a difference (under "kernel" for as long as its word is good).
    for offset, taken in after:
        board.offset, board.synchronised = offset, False
        board.read(taken if trust == "auto" else [wait // 20 for wait in taken])
        assert clock.trusted()
        assert clock.release_before() is None
        assert clock.settle() == (TRUE, True)
    assert [clock.wall_ns(stamp) for stamp in board.stamps] == [TRUE + stamp for stamp in board.stamps]


@given(
    trust=st.sampled_from(["auto", "kernel", "always"]),
    saved=st.sampled_from([0, SAVED]),
    adopted=st.one_of(st.none(), anything),
    steps=st.lists(st.tuples(anything, st.booleans(), st.lists(waits, max_size=4)), min_size=1, max_size=8),
)
def test_between_two_steps_no_time_repeats_goes_back_or_loses_its_trust(
    trust: str, saved: int, adopted: int | None, steps: list[tuple[int, bool, list[int]]]
) -> None:
    board = Board(offset=steps[0][0])
    clock = board.clock(trust)
    clock.remember(saved)
    vouched = set()
    if adopted is not None:
        clock.adopt(adopted, True)
        vouched.add(adopted)
    was_trusted = adopted is not None
    for offset, synchronised, taken in steps:
        board.offset, board.synchronised = offset, synchronised
        board.mono += SECOND  # the kernel's answer is a tenth of that old at most
        settled, trusted = clock.settle()
        board.read([wait // 200 for wait in taken])  # in all less than what the kernel's word is good for
        assert clock.settle() == (settled, trusted)
        assert [clock.wall_ns(stamp) for stamp in board.stamps] == [settled + stamp for stamp in board.stamps]
        if synchronised:
            vouched.add(offset)
        if trust == "always" or synchronised:
            assert (settled, trusted) == (offset, True)
        elif was_trusted:
            assert trusted, "a true offset stays true"
        if trusted and trust != "always":
            assert settled in vouched or (trust == "auto" and settled + board.mono >= BUILT_NS)
        was_trusted = trusted


@given(
    pauses=st.lists(st.integers(0, 20_000_000), min_size=60, max_size=200),
    readings=st.lists(st.integers(0, 50_000_000), min_size=1, max_size=20),
)
def test_being_put_aside_while_looking_moves_no_time(pauses: list[int], readings: list[int]) -> None:
    """Up to 20 ms between any two looks at the clocks: the scheduler's doing, no step."""
    now = SECOND
    left = iter(pauses)
    calm = True

    def mono() -> int:
        nonlocal now
        if not calm:
            now += next(left, 0)
        return now

    clock = Clock(mono_ns=mono, wall_now_ns=lambda: mono() + TRUE, synchronised=lambda: False)
    assert clock.settle() == (TRUE, True)
    calm = False
    stamps = []
    for wait in readings:
        now += wait
        stamps.append(clock.mono_ns())
        assert [clock.wall_ns(stamp) for stamp in stamps] == [TRUE + stamp for stamp in stamps]
    assert clock.steps == 0
