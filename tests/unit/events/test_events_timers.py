"""Timers: points 1 to 4 of the contract."""

from __future__ import annotations

import math
import statistics
import time

import pytest

from agent.events import EventManager, ManualClock, Missed
from agent.events.clock import nanoseconds

Seen = list[tuple[str, float]]


def test_01_periods_do_not_drift_however_late_the_turns_are(manual: EventManager, clock: ManualClock) -> None:
    due: list[float] = []
    timer = manual.create_timer_event(1.0, lambda: due.append(clock.now()))
    for late in (0.3, 0.1, 0.7, 0.2, 0.4):  # each turn comes that much after a whole second
        clock.advance_to(math.floor(clock.now()) + 1.0 + late)
        assert manual.run_once() == 1
    assert timer.due == 6.0
    assert timer.skipped == 0
    assert timer.fired == 5


def test_01_the_first_firing_comes_after_first_after_and_then_every_interval(
    manual: EventManager, clock: ManualClock
) -> None:
    seen: list[float] = []
    manual.create_timer_event(1.0, lambda: seen.append(clock.now()), first_after=0.0)
    manual.create_timer_event(3.5, manual.terminate, repeat=False)
    manual.loop()
    assert seen == [0.0, 1.0, 2.0, 3.0]


def test_01_a_third_of_a_second_meets_every_whole_second_of_a_day(manual: EventManager, clock: ManualClock) -> None:
    timer = manual.create_timer_event(1 / 3, int)
    clock.advance(86400.0)
    manual.run_once()
    assert timer.fired + timer.skipped == 3 * 86400
    assert timer.due == pytest.approx(86400.0 + 1 / 3, abs=2e-9)


def test_02_skip_fires_once_counts_the_rest_and_keeps_the_grid(manual: EventManager, clock: ManualClock) -> None:
    timer = manual.create_timer_event(1.0, int, missed=Missed.SKIP)
    clock.advance(3.7)
    assert manual.run_once() == 1
    assert (timer.fired, timer.skipped, timer.due) == (1, 2, 4.0)
    assert manual.run_once() == 0
    clock.advance(0.3)
    assert manual.run_once() == 1
    assert (timer.fired, timer.skipped, timer.due) == (2, 2, 5.0)


def test_02_a_callback_longer_than_its_period_skips_and_does_not_burst(
    manual: EventManager, clock: ManualClock
) -> None:
    timer = manual.create_timer_event(1.0, lambda: clock.advance(2.5))
    manual.create_timer_event(20.1, manual.terminate, repeat=False)
    manual.loop()
    # It fires at 1, 3.5, 6 ... 21, each time for all points that went by since.
    assert (timer.fired, timer.skipped) == (9, 12)


def test_02_catch_up_fires_once_for_each_missed_point(manual: EventManager, clock: ManualClock) -> None:
    timer = manual.create_timer_event(1.0, int, missed=Missed.CATCH_UP)
    clock.advance(3.7)
    assert manual.run_once() == 3
    assert (timer.fired, timer.skipped, timer.due) == (3, 0, 4.0)


def test_03_due_time_decides_the_order_and_creation_breaks_ties(manual: EventManager, clock: ManualClock) -> None:
    order: list[str] = []
    for delay, name in ((3.0, "c"), (1.0, "a"), (2.0, "b1"), (2.0, "b2"), (1.0, "a2"), (2.0, "b3")):
        manual.create_timer_event(delay, order.append, name, repeat=False)
    clock.advance(5.0)
    assert manual.run_once() == 6
    assert order == ["a", "a2", "b1", "b2", "b3", "c"]


@pytest.mark.parametrize("count", [5, 500])  # by the heap alone, and by the sorted run
def test_03_order_does_not_depend_on_how_many_there_are(manual: EventManager, clock: ManualClock, count: int) -> None:
    order: list[tuple[float, int]] = []
    expected = []
    for number in range(count):
        delay = 1.0 + (number * 7919 % 13)
        manual.create_timer_event(delay, order.append, (delay, number), repeat=False)
        expected.append((delay, number))
    clock.advance(20.0)
    assert manual.run_once() == count
    assert order == sorted(expected)


def test_03_timers_that_came_in_bulk_and_one_by_one_fire_in_one_order(manual: EventManager, clock: ManualClock) -> None:
    order: list[float] = []
    for number in range(300):  # sorted into a run
        delay = 1.0 + number
        manual.create_timer_event(delay, order.append, delay, repeat=False)
    manual.run_once()
    for number in range(0, 300, 17):  # pushed onto the heap, one a turn
        delay = 1.5 + number
        manual.create_timer_event(delay, order.append, delay, repeat=False)
        manual.run_once()
    assert manual._timers.agenda.run
    assert manual._timers.agenda.heap
    clock.advance(400.0)
    assert manual.run_once() == 318
    assert order == sorted(order)


def test_03_the_batch_is_fixed_before_the_first_of_it_runs(manual: EventManager, clock: ManualClock) -> None:
    order: list[str] = []

    def first() -> None:
        order.append("first")
        manual.create_timer_event(1.0, order.append, "child", first_after=0.0, repeat=False)
        third.cancel()

    manual.create_timer_event(1.0, first, repeat=False)
    manual.create_timer_event(1.0, order.append, "second", repeat=False)
    third = manual.create_timer_event(1.0, order.append, "third", repeat=False)
    clock.advance(1.0)
    assert manual.run_once() == 2
    assert order == ["first", "second"]
    assert not third.active
    assert third.fired == 0
    assert manual.run_once() == 1
    assert order == ["first", "second", "child"]


def test_03_a_rescheduled_timer_leaves_the_batch(manual: EventManager, clock: ManualClock) -> None:
    order: list[str] = []
    manual.create_timer_event(1.0, lambda: late.reschedule(5.0), repeat=False)
    late = manual.create_timer_event(1.0, order.append, "late")
    clock.advance(1.0)
    assert manual.run_once() == 1
    assert late.due == 6.0
    clock.advance(5.0)
    assert manual.run_once() == 1
    assert order == ["late"]
    assert late.due == 11.0


def test_03_catch_up_firings_of_several_timers_are_merged_by_due_time(manual: EventManager, clock: ManualClock) -> None:
    order: list[str] = []
    manual.create_timer_event(2.0, order.append, "two", missed=Missed.CATCH_UP)
    manual.create_timer_event(3.0, order.append, "three", missed=Missed.CATCH_UP)
    manual.create_timer_event(1.5, order.append, "skip")
    clock.advance(6.0)
    manual.run_once()
    # 1.5 skip (once, the points at 3, 4.5 and 6 are skipped), 2 two, 3 three, 4 two, 6 two before three (created first)
    assert order == ["skip", "two", "three", "two", "two", "three"]


def test_04_a_step_of_the_wall_clock_moves_no_timer(monkeypatch: pytest.MonkeyPatch, manager: EventManager) -> None:
    assert manager.now() == pytest.approx(time.monotonic(), abs=1.0)
    stepped = time.time() + 1e6
    monkeypatch.setattr(time, "time", lambda: stepped)
    fired: list[float] = []
    due = manager.create_timer_event(0.02, lambda: fired.append(time.monotonic()), repeat=False).due
    manager.loop()
    assert due is not None
    assert 0.0 <= fired[0] - due < 1.0


@pytest.mark.parametrize("interval", [0.0, -1.0, math.nan, math.inf, -math.inf])
def test_04_an_interval_that_is_no_time_is_refused_at_the_call(manual: EventManager, interval: float) -> None:
    with pytest.raises(ValueError, match="interval"):
        manual.create_timer_event(interval, int)
    timer = manual.create_timer_event(1.0, int)
    with pytest.raises(ValueError, match="interval"):
        timer.reschedule(interval)
    assert timer.due == 1.0


@pytest.mark.parametrize("first_after", [-0.001, math.nan, math.inf])
def test_04_a_first_after_that_is_no_time_is_refused_at_the_call(manual: EventManager, first_after: float) -> None:
    with pytest.raises(ValueError, match="first_after"):
        manual.create_timer_event(1.0, int, first_after=first_after)


def test_04_never_early_and_half_of_the_firings_within_300_microseconds(manager: EventManager) -> None:
    late: list[float] = []
    period = 0.0037
    timer = manager.create_timer_event(period, lambda: late.append(time.monotonic() - first - (len(late)) * period))
    first = timer.due or 0.0
    manager.create_timer_event(0.75, manager.terminate, repeat=False)
    best = math.inf
    for _ in range(5):  # "on an idle machine": a busy one gets a few tries
        late.clear()
        timer.reschedule(period)
        first = timer.due or 0.0
        skipped = timer.skipped
        manager.create_timer_event(0.4, manager.terminate, repeat=False)
        manager.loop()
        if timer.skipped > skipped:
            continue  # the list no longer matches the grid
        assert min(late) >= -1e-9  # the grid is in whole nanoseconds
        best = min(best, statistics.median(late))
        if best <= 0.0003:
            return
    pytest.fail(f"half of the firings came later than {best * 1e3:.3f} ms")


def test_04_ten_steps_of_a_tenth_meet_the_point_at_one(manual: EventManager, clock: ManualClock) -> None:
    timer = manual.create_timer_event(0.1, int)
    for step in range(1, 1001):
        clock.advance(0.1)
        assert manual.run_once() == 1, step
    assert (timer.fired, timer.skipped) == (1000, 0)
    assert clock.now() == 100.0


def test_04_a_one_shot_meets_a_clock_that_has_come_by_other_steps(manual: EventManager, clock: ManualClock) -> None:
    clock.advance(0.1)
    timer = manual.create_timer_event(0.2, int, repeat=False)  # 0.1 + 0.2 is 0.30000000000000004 in floats
    clock.advance(0.2)
    assert manual.run_once() == 1
    assert not timer.active


def test_04_an_interval_below_the_clocks_resolution_neither_hangs_nor_bursts(
    manual: EventManager, clock: ManualClock
) -> None:
    timer = manual.create_timer_event(5e-324, int)
    clock.advance(1e-3)
    assert manual.run_once() == 1
    assert timer.fired + timer.skipped == 1_000_000  # taken as one nanosecond


def test_handle_cancel_is_idempotent_and_final(manual: EventManager, clock: ManualClock) -> None:
    timer = manual.create_timer_event(1.0, int, name="x")
    assert timer.active
    timer.cancel()
    timer.cancel()
    assert not timer.active
    assert timer.due is None
    with pytest.raises(RuntimeError, match="cancelled"):
        timer.reschedule(1.0)
    clock.advance(2.0)
    assert manual.run_once() == 0
    assert manual.stats().timers == 0


def test_handle_a_callback_may_cancel_its_own_timer(manual: EventManager) -> None:
    def stop() -> None:
        assert timer.fired == 1
        timer.cancel()

    timer = manual.create_timer_event(1.0, stop)
    manual.loop()  # ends, as nothing is left
    assert (timer.fired, timer.active) == (1, False)


def test_handle_a_one_shot_that_fired_can_be_armed_again(manual: EventManager, clock: ManualClock) -> None:
    timer = manual.create_timer_event(1.0, int, repeat=False)
    manual.loop()
    assert not timer.active
    timer.reschedule(2.0)
    assert timer.active
    manual.loop()
    assert (timer.fired, clock.now()) == (2, 3.0)


def test_handle_reschedule_replaces_the_entry_it_had(manual: EventManager, clock: ManualClock) -> None:
    timer = manual.create_timer_event(1.0, int)
    for _ in range(1000):
        timer.reschedule(2.0)
    assert len(manual._timers.agenda) < 200  # the dead are cleared out
    assert manual.stats().timers == 1
    clock.advance(2.0)
    assert manual.run_once() == 1


def test_cancelled_timers_do_not_pile_up(manual: EventManager, clock: ManualClock) -> None:
    for _ in range(10_000):
        manual.create_timer_event(1000.0, int, repeat=False).cancel()
    assert len(manual._timers.agenda) <= 130
    keep = [manual.create_timer_event(10.0 + n, int, repeat=False) for n in range(300)]
    manual.run_once()
    for timer in keep[::2]:
        timer.cancel()
    clock.advance(1000.0)
    assert manual.run_once() == 150


def test_the_manual_clock_only_goes_forward() -> None:
    clock = ManualClock(5.0)
    with pytest.raises(ValueError, match="forward"):
        clock.advance(-0.1)
    with pytest.raises(ValueError, match="forward"):
        clock.advance(math.nan)
    clock.advance_to(4.0)
    assert clock.now() == 5.0
    clock.advance_to(9e6 + 0.1)
    assert clock.now() >= 9e6 + 0.1
    assert nanoseconds(0.3) == 300_000_000
