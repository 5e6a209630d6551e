"""Work: points 10 to 13 of the contract."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from events_support import never, run_python, turn_until

from agent.events import EventManager, ManualClock, WorkRejected, WorkTimeout
from agent.events.costs import MOST_KEYS, Costs
from agent.events.pool import MOST_ABANDONED, PATIENCE


class Gate:
    """A job that is held until the test lets it go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.open = threading.Event()

    def __call__(self, result: object = None) -> object:
        self.begun.set()
        assert self.open.wait(20.0), "the test never opened the gate"
        return result

    def hold(self) -> Gate:
        assert self.begun.wait(10.0), "the job never began"
        return self


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


def messages(caplog: pytest.LogCaptureFixture, word: str) -> list[str]:
    return [r.getMessage() for r in caplog.records if word in r.getMessage()]


def test_10_the_result_comes_to_on_done_on_the_loops_thread(manager: EventManager) -> None:
    seen: list[object] = []

    def job(a: int, b: int) -> tuple[int, int]:
        return a + b, threading.get_ident()

    work = manager.execute_work(
        job, 20, 22, on_done=lambda r: seen.append((r, threading.get_ident(), work.done)), name="sum"
    )
    assert work.active
    assert not work.done
    manager.loop()  # goes on until the work is delivered
    (((total, worker), here, done),) = seen  # type: ignore[misc]
    assert total == 42
    assert worker != here == threading.get_ident()
    assert done
    assert work.done
    assert (work.name, work.fired, work.active) == ("sum", 1, False)


def test_10_an_exception_comes_to_on_error(manager: EventManager) -> None:
    errors: list[BaseException] = []
    manager.execute_work(int, "x", on_done=never, on_error=errors.append)
    manager.execute_work(raise_exit, on_done=never, on_error=errors.append)
    manager.loop()
    assert sorted(type(error).__name__ for error in errors) == ["SystemExit", "ValueError"]


def raise_exit() -> None:
    raise SystemExit(3)


def test_10_an_exception_that_nobody_asked_for_is_logged(
    manager: EventManager, caplog: pytest.LogCaptureFixture
) -> None:
    manager.execute_work(int, "x", name="broken")
    manager.loop()
    assert messages(caplog, "work.failed name=broken")


def test_10_pieces_of_a_key_run_one_after_another_in_order() -> None:
    with EventManager(workers=(4, 4)) as manager:
        order: list[int] = []
        running: list[int] = []
        overlaps: list[int] = []
        delivered: list[int] = []

        def job(number: int) -> int:
            running.append(number)
            overlaps.append(len(running))
            order.append(number)
            time.sleep(0.0005)
            running.remove(number)
            return number

        for number in range(60):
            manager.execute_work(job, number, key="k", on_done=delivered.append)
        manager.loop()
        assert order == delivered == list(range(60))
        assert set(overlaps) == {1}


def test_10_other_keys_run_at_the_same_time() -> None:
    barrier = threading.Barrier(3, timeout=10.0)
    with EventManager(workers=(3, 3)) as manager:
        done: list[int] = []
        for key in ("a", "b", None):
            manager.execute_work(barrier.wait, key=key, on_done=done.append)
        manager.loop()
        assert sorted(done) == [0, 1, 2]


def test_10_a_piece_goes_to_the_least_loaded_worker(gate: Gate) -> None:
    """Two workers held, one with a heavy piece queued: light ones queue behind the other until it has as much."""
    with EventManager(workers=(2, 2)) as manager:
        other = Gate()
        manager.execute_work(gate)
        manager.execute_work(other)
        gate.hold()
        other.hold()
        heavy = manager.execute_work(int, weight=10.0)
        light = [manager.execute_work(int, weight=1.0) for _ in range(9)]
        assert heavy.worker is not None
        assert all(work.worker is not heavy.worker for work in light)
        loads = sorted(worker.load for worker in manager._pool._workers)
        assert loads[1] - loads[0] <= 2 * loads[1] / 10
        other.open.set()
        gate.open.set()
        manager.loop()


def test_10_costs_are_refined_by_what_the_key_really_took() -> None:
    costs = Costs()
    assert costs.expected("new", 2.0) == 2 * costs.expected(None, 1.0)
    for _ in range(20):
        costs.learn("slow", 1.0, 0.2)
        costs.learn("fast", 1.0, 0.001)
    assert costs.expected("slow", 1.0) == pytest.approx(0.2, rel=0.01)
    assert costs.expected("fast", 3.0) == pytest.approx(0.003, rel=0.01)
    costs.learn("weightless", 0.0, 1.0)
    assert costs.expected("weightless", 0.0) == 0.0
    for number in range(2 * MOST_KEYS):
        costs.learn(number, 1.0, 0.1)
    assert len(costs._rates) == MOST_KEYS


def test_10_a_worker_that_runs_dry_takes_from_the_others(gate: Gate) -> None:
    """Ten pieces stand behind the held one by a wrong guess; they do not wait for it."""
    with EventManager(workers=(2, 2)) as manager:
        manager.execute_work(gate, weight=0.001)  # declared cheap, and is not
        gate.hold()
        other = Gate()
        manager.execute_work(other, weight=1000.0)
        other.hold()
        done: list[int] = []
        for number in range(10):
            manager.execute_work(int, number, on_done=done.append)
        assert len(manager._pool._workers[0].queue) == 10
        other.open.set()
        turn_until(manager, lambda: len(done) == 10)
        assert done == list(range(10))
        gate.open.set()


def test_11_a_piece_that_waits_makes_the_pool_grow_and_the_new_thread_takes_it(gate: Gate) -> None:
    with EventManager(workers=(1, 4)) as manager:
        manager.execute_work(gate, name="hog")
        gate.hold()
        done: list[float] = []
        began = time.monotonic()
        manager.execute_work(time.monotonic, on_done=done.append)
        assert manager.stats().work.queued == 1
        turn_until(manager, lambda: done)
        assert PATIENCE * 0.99 <= done[0] - began < 1.0
        stats = manager.stats().work
        assert (stats.workers, stats.queued, stats.starved) == (2, 0, 1)
        assert stats.longest_wait >= PATIENCE
        gate.open.set()


def test_11_the_pool_grows_without_the_loop_when_workers_themselves_are_slow() -> None:
    """Nobody turns the loop while a hundred pieces wait: no growth is needed for them to be done all the same."""
    with EventManager(workers=(1, 1)) as manager:
        done: list[int] = []
        for number in range(100):
            manager.execute_work(int, number, on_done=done.append)
        manager.loop()
        assert done == list(range(100))


def test_11_the_pool_shrinks_after_an_idle_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.events.pool.IDLE_AFTER", 0.05)
    barrier = threading.Barrier(3, timeout=10.0)
    with EventManager(workers=(1, 3)) as manager:
        for _ in range(3):
            manager.execute_work(barrier.wait)
        manager.loop()
        assert manager.stats().work.workers >= 2
        manager.create_timer_event(0.01, int)
        turn_until(manager, lambda: manager.stats().work.workers == 1)
        done: list[int] = []
        manager.execute_work(int, 7, on_done=done.append)
        turn_until(manager, lambda: done)


def test_11_starvation_is_counted_and_logged_with_what_is_in_the_way(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    with EventManager(workers=(1, 1)) as manager:
        manager.execute_work(gate, name="hog")
        gate.hold()
        manager.execute_work(int, name="victim")
        turn_until(manager, lambda: manager.stats().work.starved)
        (line,) = messages(caplog, "work.starved")
        assert "name=victim" in line
        assert "behind=hog" in line
        assert manager.stats().work.oldest_wait >= PATIENCE
        turns = manager.stats().turns
        manager.run_once(timeout=0.3)  # it has been said: no timer comes back to say it again
        assert manager.stats().turns == turns + 1
        assert manager.stats().work.starved == 1
        gate.open.set()
        manager.loop()
        assert manager.stats().work.starved == 1


def test_11_a_piece_behind_its_own_key_starves_too_and_growing_does_not_help(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    with EventManager(workers=(1, 4)) as manager:
        manager.execute_work(gate, key="meter", name="meter.parse")
        gate.hold()
        manager.execute_work(int, key="meter", name="meter.next")
        turn_until(manager, lambda: manager.stats().work.starved)
        assert manager.stats().work.workers == 1
        assert any("behind=meter.parse" in line for line in messages(caplog, "work.starved"))
        gate.open.set()
        manager.loop()


def test_12_a_full_queue_is_refused_at_the_caller(gate: Gate) -> None:
    with EventManager(workers=(1, 1), work_queue=2) as manager:
        done: list[int] = []
        manager.execute_work(gate, name="hog")  # in hand, not waiting, even if the thread has not begun
        for number in range(2):
            manager.execute_work(int, number, on_done=done.append)
        with pytest.raises(WorkRejected, match="work_queue"):
            manager.execute_work(int, 3, on_done=done.append)
        stats = manager.stats().work
        assert (stats.queued, stats.rejected, stats.submitted) == (2, 1, 3)
        gate.open.set()
        manager.loop()
        assert done == [0, 1]
        manager.execute_work(int, 4, on_done=done.append)
        manager.loop()
        assert done == [0, 1, 4]


def test_12_pieces_behind_a_key_count_as_waiting(gate: Gate) -> None:
    with EventManager(workers=(4, 4), work_queue=1) as manager:
        manager.execute_work(gate, key="k")
        manager.execute_work(int, key="k")
        with pytest.raises(WorkRejected):
            manager.execute_work(int, key="k")
        manager.execute_work(int)  # an idle thread has room for it
        gate.open.set()
        manager.loop()


def test_12_a_timeout_counts_from_the_start_and_replaces_the_thread(gate: Gate) -> None:
    with EventManager(workers=(1, 1)) as manager:
        errors: list[tuple[float, BaseException]] = []
        first = Gate()
        manager.execute_work(first)  # the piece below waits 0.2 s before it begins
        manager.create_timer_event(0.2, first.open.set, repeat=False)
        began: list[float] = []

        def held() -> None:
            began.append(time.monotonic())
            gate()

        work = manager.execute_work(
            held, timeout=0.15, name="stuck", on_done=never, on_error=lambda e: errors.append((time.monotonic(), e))
        )
        done: list[int] = []
        manager.execute_work(int, 5, on_done=done.append)
        turn_until(manager, lambda: done)
        ((when, error),) = errors
        assert isinstance(error, WorkTimeout)
        assert isinstance(error, TimeoutError)
        assert "stuck" in str(error)
        assert 0.15 <= when - began[0] < 1.0
        assert work.done
        assert not gate.open.is_set(), "the piece behind it was done by another thread"
        stats = manager.stats().work
        assert (stats.abandoned, stats.timed_out) == (1, 1)
        gate.open.set()
        turn_until(manager, lambda: manager.stats().work.abandoned == 0)
        assert len(errors) == 1, "what the call returned in the end is nobody's"


def test_12_what_is_queued_behind_a_timed_out_call_goes_to_the_new_thread(gate: Gate) -> None:
    """The other worker is held, too, and nothing that comes later helps: only the replacement can take it."""
    with EventManager(workers=(1, 2)) as manager:
        manager.execute_work(gate)
        gate.hold()
        other = Gate()
        errors: list[float] = []
        manager.execute_work(other, timeout=0.4, on_error=lambda _: errors.append(time.monotonic()))
        turn_until(manager, lambda: manager.stats().work.workers == 2)
        other.hold()
        done: list[float] = []
        for _ in range(4):
            manager.execute_work(time.monotonic, on_done=done.append)
        turn_until(manager, lambda: len(done) == 4)
        assert len(errors) == 1
        gate.open.set()
        other.open.set()


def test_12_the_next_of_its_key_waits_until_the_call_has_really_returned(gate: Gate) -> None:
    with EventManager(workers=(1, 2)) as manager:
        errors: list[BaseException] = []
        done: list[str] = []
        manager.execute_work(gate, key="bus", timeout=0.05, on_error=errors.append)
        manager.execute_work(str, "next", key="bus", on_done=done.append)
        manager.execute_work(str, "other", key="else", on_done=done.append)
        turn_until(manager, lambda: errors and done)
        manager.run_once(timeout=0.2)
        assert done == ["other"]
        gate.open.set()
        turn_until(manager, lambda: len(done) == 2)
        assert done == ["other", "next"]


def test_12_a_timeout_by_the_manual_clock(gate: Gate, manual: EventManager, clock: ManualClock) -> None:
    errors: list[BaseException] = []
    manual.execute_work(gate, timeout=30.0, on_error=errors.append)
    gate.hold()
    manual.run_once(timeout=0)
    assert not errors
    clock.advance(31.0)
    assert manual.run_once(timeout=0) == 1
    assert isinstance(errors[0], WorkTimeout)
    manual.loop()  # nothing is outstanding any more


def test_12_a_piece_that_is_done_in_time_does_not_time_out(manual: EventManager, clock: ManualClock) -> None:
    done: list[int] = []
    manual.execute_work(int, 1, timeout=10.0, on_done=done.append, on_error=never)
    turn_until(manual, lambda: done)
    clock.advance(20.0)
    assert manual.run_once() == 0


def test_12_threads_lost_to_calls_that_never_return_are_bounded(monkeypatch: pytest.MonkeyPatch, gate: Gate) -> None:
    monkeypatch.setattr("agent.events.pool.MOST_ABANDONED", 3)
    assert MOST_ABANDONED > 3
    with EventManager(workers=(1, 1)) as manager:
        errors: list[BaseException] = []
        for number in range(3):
            manager.execute_work(gate, timeout=0.01, on_error=errors.append)
            turn_until(manager, lambda n=number: len(errors) == n + 1)
        with pytest.raises(WorkRejected, match="never returned"):
            manager.execute_work(int)
        assert manager.stats().work.abandoned == 3
        gate.open.set()
        turn_until(manager, lambda: manager.stats().work.abandoned == 0)
        done: list[int] = []
        manager.execute_work(int, 3, on_done=done.append)
        turn_until(manager, lambda: done)


def test_12_the_queue_of_the_last_thread_to_be_lost_hears_so(monkeypatch: pytest.MonkeyPatch, gate: Gate) -> None:
    monkeypatch.setattr("agent.events.pool.MOST_ABANDONED", 1)
    with EventManager(workers=(1, 1)) as manager:
        errors: list[BaseException] = []
        manager.execute_work(gate, timeout=0.01, on_error=errors.append)
        manager.execute_work(int, on_error=errors.append)
        manager.execute_work(int, key="k", on_error=errors.append)
        manager.execute_work(int, key="k", on_error=errors.append)
        turn_until(manager, lambda: len(errors) == 4)
        assert [type(error) for error in errors] == [WorkTimeout, WorkRejected, WorkRejected, WorkRejected]
        assert manager._pool.outstanding == 0


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), float("inf")])
def test_12_a_timeout_that_is_no_time_is_refused(manual: EventManager, timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        manual.execute_work(int, timeout=timeout)


def test_13_a_manager_that_nobody_closed_does_not_keep_the_process() -> None:
    began = time.monotonic()
    result = run_python("""
        import threading, time
        from agent.events import EventManager
        manager = EventManager(workers=(2, 2))
        begun = threading.Event()
        manager.execute_work(lambda: (begun.set(), time.sleep(600)))
        manager.execute_work(int, on_done=lambda _: manager.terminate())
        manager.loop()
        assert begun.wait(10)
        print("over")
    """)
    assert (result.stdout, result.returncode) == ("over\n", 0), result.stderr
    assert time.monotonic() - began < 20.0


def test_13_close_waits_for_running_work_and_ends_what_is_queued(gate: Gate) -> None:
    manager = EventManager(workers=(1, 1))
    seen: list[object] = []
    manager.execute_work(gate, "result", on_done=seen.append)
    gate.hold()
    manager.execute_work(int, on_done=never, on_error=seen.append, name="queued")
    manager.execute_work(int, key="k", on_done=never, on_error=seen.append)
    threading.Timer(0.1, gate.open.set).start()
    began = time.monotonic()
    manager.close()
    assert time.monotonic() - began < 1.5, "it goes on as soon as the work is done"
    assert seen[0] == "result"
    assert [type(item) for item in seen[1:]] == [WorkRejected, WorkRejected]
    assert "queued" in str(seen[1])


def test_13_close_waits_two_seconds_at_most_and_names_what_it_leaves(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    manager = EventManager(workers=(1, 1))
    errors: list[BaseException] = []
    manager.execute_work(gate, name="endless", on_done=never, on_error=errors.append)
    gate.hold()
    began = time.monotonic()
    manager.close()
    assert 1.9 < time.monotonic() - began < 4.0
    assert messages(caplog, "work.left name=endless")
    assert isinstance(errors[0], WorkTimeout)
    gate.open.set()
    manager.close()


def test_13_close_is_idempotent_and_final(manager: EventManager) -> None:
    timer = manager.create_timer_event(1.0, int)
    manager.close()
    manager.close()
    for call in (
        lambda: manager.create_timer_event(1.0, int),
        lambda: manager.execute_work(int),
        lambda: manager.call_soon(int),
        lambda: manager.call_soon_threadsafe(int),
        manager.loop,
        manager.run_once,
    ):
        with pytest.raises(RuntimeError, match="closed"):
            call()
    timer.cancel()
    manager.terminate()
    assert manager.stats().work.workers == 0


def test_13_idle_threads_end_with_close(manager: EventManager) -> None:
    manager.execute_work(int)
    manager.loop()
    names = [t for t in threading.enumerate() if t.name.startswith("events-")]
    manager.close()
    for thread in names:
        thread.join(5.0)
        assert not thread.is_alive()


def test_handle_cancel_before_it_begins(gate: Gate) -> None:
    with EventManager(workers=(1, 1), work_queue=2) as manager:
        manager.execute_work(gate)
        gate.hold()
        queued = manager.execute_work(never, on_done=never, on_error=never)
        chained = manager.execute_work(never, key="k", on_done=never)
        queued.cancel()
        queued.cancel()
        assert queued.done
        assert not queued.active
        done: list[int] = []
        manager.execute_work(int, 1, key="k", on_done=done.append)  # its room is free again
        chained.cancel()
        manager.execute_work(int, 2, key="k", on_done=done.append)
        gate.open.set()
        manager.loop()
        assert done == [1, 2]


def test_handle_cancel_while_it_runs_drops_what_comes_of_it(gate: Gate, manager: EventManager) -> None:
    work = manager.execute_work(gate, on_done=never, on_error=never, key="k")
    gate.hold()
    work.cancel()
    assert work.done
    manager.loop()  # does not wait for it
    done: list[int] = []
    manager.execute_work(int, 1, key="k", on_done=done.append)
    assert manager.run_once(timeout=0.05) == 0, "the next of its key waits until it has returned"
    gate.open.set()
    turn_until(manager, lambda: done)


def test_handle_cancel_of_finished_work_that_is_not_delivered_yet(manager: EventManager) -> None:
    finished = threading.Event()
    work = manager.execute_work(finished.set, on_done=never)
    assert finished.wait(10.0)
    work.cancel()
    manager.loop()
    work.cancel()
    assert manager._pool.outstanding == 0


def test_weight_must_be_a_number(manual: EventManager) -> None:
    with pytest.raises(ValueError, match="weight"):
        manual.execute_work(int, weight=float("nan"))
    with pytest.raises(ValueError, match="workers"):
        EventManager(workers=(3, 2))
    with pytest.raises(ValueError, match="workers"):
        EventManager(workers=(0, 0))


def test_work_can_be_handed_on_from_its_own_callback(manager: EventManager) -> None:
    seen: list[int] = []

    def again(number: int) -> None:
        seen.append(number)
        if number < 5:
            manager.execute_work(int, number + 1, on_done=again)

    manager.execute_work(int, 0, on_done=again)
    manager.loop()
    assert seen == [0, 1, 2, 3, 4, 5]


def test_a_worker_may_not_touch_the_loops_state(manager: EventManager) -> None:
    errors: list[BaseException] = []
    timer = manager.create_timer_event(10.0, int)
    calls = (
        lambda: manager.create_timer_event(1.0, int),
        lambda: manager.execute_work(int),
        lambda: manager.call_soon(int),
        lambda: timer.reschedule(1.0),
        manager.close,
        manager.loop,
    )

    def note(error: BaseException) -> None:
        errors.append(error)
        if len(errors) == len(calls):
            manager.terminate()

    def begin() -> None:
        for call in calls:
            manager.execute_work(call, on_done=never, on_error=note)

    manager.call_soon(begin)
    manager.loop()
    assert all(isinstance(error, RuntimeError) for error in errors)
    assert all("loop's thread" in str(error) for error in errors)
