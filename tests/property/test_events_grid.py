"""Properties of the timers' agenda and of the arithmetic of their grids."""

from __future__ import annotations

import math
from fractions import Fraction

from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.events import EventManager, ManualClock, Missed, TimerEvent
from agent.events.clock import nanoseconds
from agent.events.timers import grid_point, next_point

DAY = 86400.0
intervals = st.floats(1e-6, 1e5) | st.sampled_from([0.1, 0.3, 1 / 3, 0.7, 1.0, 2.5, 1e-3, 1 / 7, 30.0, math.pi])
origins = st.integers(0, 10**15)  # up to eleven days of uptime, in ns


@given(origins, intervals, st.integers(0, 10**7))
def test_a_point_of_the_grid_is_within_a_nanosecond_of_the_exact_one(first: int, interval: float, n: int) -> None:
    exact = Fraction(first, 10**9) + n * Fraction(interval)
    # the rounding to a nanosecond, one of a float this large, and that of interval * 1e9 taken n times
    allowed = 0.5e-9 + 2 * math.ulp(float(exact)) + 2 * math.ulp(n * interval)
    assert abs(Fraction(grid_point(first, interval * 1e9, n)) - exact) <= allowed


@given(origins, intervals, st.floats(0.0, 2e6))
@example(38977251976919962, 1e-9, 38977251.97692061)  # where the first estimate is one too high
def test_the_next_point_is_the_first_one_later(first: int, interval: float, after: float) -> None:
    step = interval * 1e9
    n = next_point(first, step, after)
    assert grid_point(first, step, n) > after
    assert n == 0 or grid_point(first, step, n - 1) <= after


@given(origins, intervals, st.integers(0, 10**6))
def test_asked_at_a_point_it_gives_the_one_after(first: int, interval: float, n: int) -> None:
    """Neither the same point again, nor one too far."""
    step = interval * 1e9
    assert next_point(first, step, grid_point(first, step, n)) == n + 1


@given(st.integers(10**15, 3 * 10**17), st.integers(1, 50), st.integers(0, 10**9))
def test_steps_as_small_as_the_clock_s_own_after_years_of_uptime(first: int, step: int, later: int) -> None:
    """Where a float is coarser than the step, points fall together; the next one is later all the same."""
    after = (first + later) / 1e9
    n = next_point(first, float(step), after)
    assert grid_point(first, step, n) > after
    assert n == 0 or grid_point(first, step, n - 1) <= after


@given(st.integers(0, 2 * 10**15))
def test_nanoseconds_and_back(ns: int) -> None:
    assert nanoseconds(ns / 1e9) == ns


@given(intervals, st.lists(st.floats(0.0, 50.0), min_size=1, max_size=40), st.sampled_from(Missed))
@settings(max_examples=60, deadline=None)
def test_fired_and_skipped_make_up_the_whole_grid(interval: float, steps: list[float], missed: Missed) -> None:
    """However the turns fall, every point that is past was fired or counted as skipped, and the next is to come."""
    interval = max(interval, 0.01)
    clock = ManualClock()
    with EventManager(clock=clock) as manager:
        timer = manager.create_timer_event(interval, int, missed=missed)
        for step in steps:
            clock.advance(step)
            manager.run_once()
            past = next_point(nanoseconds(interval), interval * 1e9, clock.now())
            assert timer.fired + timer.skipped == past
            assert timer.due == grid_point(nanoseconds(interval), interval * 1e9, past)
        if missed is Missed.CATCH_UP:
            assert timer.skipped == 0


class Agenda(RuleBasedStateMachine):
    """Timers created, cancelled, rescheduled and fired at random, beside a model that sorts a plain list."""

    @initialize()
    def begin(self) -> None:
        self.clock = ManualClock()
        self.manager = EventManager(clock=self.clock)
        self.timers: dict[int, TimerEvent] = {}
        self.due: dict[int, tuple[float, int]] = {}  # name -> (due, order of arming)
        self.fired: list[int] = []
        self.armed = 0

    def arm(self, name: int, delay: float) -> None:
        self.armed += 1
        self.due[name] = (nanoseconds(self.clock.now() + delay) / 1e9, self.armed)

    @rule(count=st.integers(1, 5) | st.integers(70, 120), seed=st.integers(0, 1000))
    def create(self, count: int, seed: int) -> None:
        """A few, which go to the heap, or many at once, which are sorted into the run."""
        for delay in (((seed + n) * 7919 % 41) / 4 for n in range(count)):
            name = len(self.timers)
            self.timers[name] = self.manager.create_timer_event(
                1.0, self.fired.append, name, first_after=delay, repeat=False
            )
            self.arm(name, delay)

    @precondition(lambda self: self.due)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        for name in data.draw(st.lists(st.sampled_from(sorted(self.due)), max_size=60, unique=True)):
            self.timers[name].cancel()
            del self.due[name]

    @precondition(lambda self: self.due)
    @rule(data=st.data(), delay=st.integers(1, 40).map(lambda n: n / 4))
    def reschedule(self, data: st.DataObject, delay: float) -> None:
        name = data.draw(st.sampled_from(sorted(self.due)))
        self.timers[name].reschedule(delay)
        self.arm(name, delay)

    @rule(step=st.integers(0, 20).map(lambda n: n / 4))
    def fire(self, step: float) -> None:
        self.clock.advance(step)
        self.fired.clear()
        expected = sorted((due, name) for name, due in self.due.items() if due[0] <= self.clock.now())
        assert self.manager.run_once() == len(expected)
        assert self.fired == [name for _, name in expected]
        for _, name in expected:
            del self.due[name]

    @invariant()
    def books(self) -> None:
        if hasattr(self, "manager"):
            assert self.manager.stats().timers == len(self.due)
            assert len(self.manager._timers.agenda) <= 2 * len(self.due) + 65

    def teardown(self) -> None:
        if hasattr(self, "manager"):
            self.manager.close()


Agenda.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestAgenda = Agenda.TestCase
