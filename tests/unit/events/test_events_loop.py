"""The loop and its cost: points 19 to 22 of the contract, and calls from other threads."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from events_support import ROOT, Pipes, never, turn_until

from agent.events import EventManager, ManualClock, Missed


def test_19_the_loop_returns_when_nothing_is_left(manager: EventManager) -> None:
    manager.loop()
    fired: list[int] = []
    manager.create_timer_event(0.001, fired.append, 1, repeat=False)
    manager.call_soon(fired.append, 0)
    manager.loop()
    assert fired == [0, 1]


def test_19_signals_and_active_descriptors_keep_it_going_and_paused_ones_do_not(
    manager: EventManager, pipes: Pipes
) -> None:
    r, _ = pipes()
    event = manager.create_socket_event(r, on_readable=never)
    signals = manager.create_signal_event(signal.SIGUSR1, never)
    order: list[str] = []

    def step() -> None:
        order.append("timer")
        if len(order) == 2:
            signals.cancel()
        if len(order) == 4:
            timer.cancel()
            event.pause()

    timer = manager.create_timer_event(0.001, step)
    manager.loop()
    assert order == ["timer"] * 4
    assert event.active
    event.resume()
    manager.call_soon(event.cancel)
    manager.loop()


def test_19_a_signal_alone_keeps_it_going(manager: EventManager) -> None:
    event = manager.create_signal_event(signal.SIGUSR1, lambda _: event.cancel())
    killer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
    killer.start()
    manager.loop()
    assert event.fired == 1
    killer.join()


def test_19_terminate_before_loop_makes_it_return_at_once_and_it_may_be_called_again(manager: EventManager) -> None:
    manager.create_timer_event(0.001, manager.terminate)
    manager.terminate()
    manager.loop()
    assert manager.stats().callbacks == 0
    manager.loop()
    assert manager.stats().callbacks == 1
    manager.loop()
    assert manager.stats().callbacks == 2


@pytest.mark.parametrize("by", ["callback", "worker", "thread"])
def test_19_terminate_from(by: str, manager: EventManager, pipes: Pipes) -> None:
    manager.create_socket_event(pipes()[0], on_readable=never)  # would go on for ever
    if by == "callback":
        manager.create_timer_event(0.001, manager.terminate)
    elif by == "worker":
        manager.execute_work(manager.terminate)
    else:
        threading.Thread(target=wait_and_call, args=(manager, manager.terminate)).start()
    manager.loop()


def wait_and_call(manager: EventManager, fn: object) -> None:
    """Call it at a moment when the loop surely waits."""
    while not manager._inbox.asleep:
        pass
    assert callable(fn)
    fn()


def test_19_the_loop_does_not_nest(manager: EventManager) -> None:
    errors: list[RuntimeError] = []

    def nest() -> None:
        for call in (manager.loop, manager.run_once):
            try:
                call()
            except RuntimeError as error:
                errors.append(error)

    manager.call_soon(nest)
    manager.loop()
    assert len(errors) == 2
    assert "nest" in str(errors[0])


def test_19_close_inside_a_callback_ends_the_loop_first(manager: EventManager) -> None:
    order: list[str] = []

    def close() -> None:
        manager.close()
        order.append("closed")
        manager.create_timer_event(1.0, never)  # not yet

    manager.create_timer_event(0.001, close)
    manager.create_timer_event(100.0, never)
    manager.loop()
    assert order == ["closed"]
    with pytest.raises(RuntimeError, match="closed"):
        manager.loop()


def test_19_run_once_is_one_turn_and_tells_how_many(manager: EventManager, pipes: Pipes) -> None:
    assert manager.run_once(timeout=0) == 0
    r, _ = pipes(full=True)
    manager.create_socket_event(r, on_readable=lambda: os.read(r, 1))
    manager.create_timer_event(1.0, int, first_after=0.0)
    manager.call_soon(int)
    manager.call_soon_threadsafe(int)
    assert manager.run_once() == 4
    began = time.monotonic()
    assert manager.run_once(timeout=0.05) == 0
    assert 0.045 <= time.monotonic() - began < 0.9


def test_19_an_exception_leaves_it_ready_for_the_next_loop(manager: EventManager) -> None:
    class End(BaseException): ...

    def end() -> None:
        raise End

    manager.create_timer_event(0.001, end, repeat=False)
    manager.terminate  # noqa: B018 - not called: the exception alone ends it
    with pytest.raises(End):
        manager.loop()
    manager.create_timer_event(0.001, manager.terminate)
    manager.loop()


def test_20_loop_moves_the_clock_to_the_next_due_time_and_run_once_never_does(
    manual: EventManager, clock: ManualClock
) -> None:
    seen: list[float] = []
    manual.create_timer_event(5.0, lambda: seen.append(clock.now()), repeat=False)
    manual.create_timer_event(1234.5, lambda: seen.append(clock.now()), repeat=False)
    assert manual.run_once() == 0
    assert clock.now() == 0.0
    assert manual.now() == 0.0
    manual.loop()
    assert seen == [5.0, 1234.5]
    assert clock.now() == 1234.5


def test_20_loop_does_not_move_the_clock_while_something_is_ready(
    manual: EventManager, clock: ManualClock, pipes: Pipes
) -> None:
    r, w = pipes(full=True)
    seen: list[float] = []

    def read() -> None:
        os.read(r, 1)
        seen.append(clock.now())
        if len(seen) < 100:
            os.write(w, b"x")
        else:
            event.cancel()

    event = manual.create_socket_event(r, on_readable=read)
    manual.create_timer_event(1.0, int, repeat=False)
    manual.loop()
    assert seen == [0.0] * 100
    assert clock.now() == 1.0


def test_20_loop_lets_work_finish_before_it_moves_the_clock(manual: EventManager, clock: ManualClock) -> None:
    seen: list[float] = []
    manual.execute_work(time.sleep, 0.05, on_done=lambda _: seen.append(clock.now()))
    manual.create_timer_event(1000.0, int, repeat=False)
    manual.loop()
    assert seen == [0.0]
    assert clock.now() == 1000.0


def test_20_work_that_waits_for_a_timer_is_no_deadlock(manual: EventManager) -> None:
    gate = threading.Event()
    done: list[bool] = []
    manual.execute_work(gate.wait, 20.0, on_done=done.append)
    manual.create_timer_event(3600.0, gate.set, repeat=False)
    began = time.monotonic()
    manual.loop()
    assert done == [True]
    assert time.monotonic() - began < 10.0


def test_20_run_once_waits_for_running_work_but_not_for_time(manual: EventManager) -> None:
    done: list[int] = []
    manual.create_timer_event(1.0, never)
    manual.execute_work(time.sleep, 0.02, on_done=lambda _: done.append(1))
    turn_until(manual, lambda: done, seconds=5.0)
    began = time.monotonic()
    assert manual.run_once() == 0
    assert time.monotonic() - began < 0.5


def simulated_day() -> list[tuple[float, str]]:
    clock = ManualClock()
    order: list[tuple[float, str]] = []
    with EventManager(clock=clock) as manager:

        def note(name: str) -> None:
            order.append((clock.now(), name))
            if name == "chain" and clock.now() < 80_000:
                manager.create_timer_event(333.0, note, "chain", repeat=False)

        for number, interval in enumerate((60.0, 90.0, 7.5, 1000 / 3, 3600.0)):
            manager.create_timer_event(interval, note, f"t{number}", missed=list(Missed)[number % 2])
        manager.create_timer_event(1.0, note, "chain", repeat=False)
        manager.create_timer_event(86400.0, manager.terminate)
        manager.loop()
    return order


def test_20_a_simulated_day_runs_in_seconds_and_gives_the_same_order_every_time() -> None:
    began = time.monotonic()
    first = simulated_day()
    assert time.monotonic() - began < 20.0
    assert first == simulated_day()
    assert [when for when, _ in first] == sorted(when for when, _ in first)
    assert sum(name == "t0" for _, name in first) == 1440
    assert sum(name == "t3" for _, name in first) == 259


IDLE = """
import signal, sys, os
from agent.events import EventManager
manager = EventManager()
r, w = os.pipe()
manager.create_socket_event(r, on_readable=int)
manager.create_signal_event(signal.SIGTERM, lambda _: manager.terminate())
manager.create_timer_event(3600.0, int)
manager.execute_work(int)
manager.create_timer_event(0.3, print, "idle", repeat=False)   # the watcher wakes up with it, and falls asleep again
manager.create_timer_event(0.3, sys.stdout.flush, repeat=False)
manager.loop()
"""


def test_21_an_idle_manager_is_never_woken() -> None:
    """By strace: from one second after the last callback to the end, no thread returns from a wait."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    program = [sys.executable, "-u", "-c", IDLE]
    calls = "trace=epoll_wait,epoll_pwait,epoll_pwait2,select,pselect6,poll,ppoll,futex,read,write,clock_nanosleep"
    traced = subprocess.Popen(
        [strace, "-f", "-ttt", "-e", calls, "-o", "/dev/stdout", *program], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert traced.stdout is not None
    lines: list[str] = []
    idle = threading.Event()

    def read() -> None:
        assert traced.stdout is not None
        for line in traced.stdout:
            lines.append(line)
            if 'write(1, "idle' in line:
                idle.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        if not idle.wait(30.0):
            pytest.skip("strace cannot trace here")
        pid = int(Path(f"/proc/{traced.pid}/task/{traced.pid}/children").read_text().split()[0])
        settled = time.time() + 1.0
        threading.Event().wait(4.0)
        os.kill(pid, signal.SIGTERM)
        ended = time.time() - 0.1
    finally:
        traced.wait(30.0)
        reader.join()
    # "<pid> <time> <call>": every call that begins or resumes between the two moments is a wake-up.
    stamps = [(float(line.split()[1]), line) for line in lines if line.split()[1:2] and line.split()[1][0].isdigit()]
    woken = [line for stamp, line in stamps if settled < stamp < ended]
    assert woken == []
    assert any("SIGTERM" in line for line in lines)


def test_21_a_lightly_loaded_loop_does_not_wake_its_watcher_for_each_event(manager: EventManager) -> None:
    """20 isolated events a second: the watcher is not woken for each of them."""
    rings = 0
    wake = manager._watcher.wake

    def count() -> None:
        nonlocal rings
        rings += 1
        wake()

    manager._watcher.wake = count  # type: ignore[method-assign]
    manager.create_timer_event(0.05, int)
    manager.create_timer_event(1.0, manager.terminate, repeat=False)
    manager.loop()
    assert rings <= 3


def test_22_the_price_of_a_dispatch_stands_in_the_benchmark_suite(tmp_path: Path) -> None:
    """The command runs, and measures beside asyncio; the figures themselves are the benchmark's business."""
    out = tmp_path / "figures.json"
    code = (
        "import sys, bench.events as b; b.FLOORS = dict.fromkeys(b.FLOORS, (None, None)); b.QUICK = (0.01, 1);"
        f"sys.argv = ['bench', '--quick', '--only', 'dispatch', '--json', {str(out)!r}]; sys.exit(b.main())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "asyncio" in out.read_text()
    assert "dispatch: one pipe" in result.stdout


def test_call_soon_runs_in_order_and_what_it_adds_waits_for_the_next_turn(manual: EventManager) -> None:
    order: list[str] = []

    def first() -> None:
        order.append("first")
        manual.call_soon(order.append, "third")

    manual.call_soon(first)
    manual.call_soon(order.append, "second")
    assert manual.run_once() == 2
    assert order == ["first", "second"]
    assert manual.run_once() == 1
    assert order == ["first", "second", "third"]


def test_call_soon_threadsafe_wakes_the_loop_and_runs_on_its_thread(manager: EventManager, pipes: Pipes) -> None:
    manager.create_socket_event(pipes()[0], on_readable=never)
    seen: list[int] = []

    def call() -> None:
        seen.append(threading.get_ident())
        manager.terminate()

    thread = threading.Thread(target=wait_and_call, args=(manager, lambda: manager.call_soon_threadsafe(call)))
    thread.start()
    manager.loop()
    thread.join()
    assert seen == [threading.get_ident()]


def test_calls_from_many_threads_are_all_made_in_each_threads_order(manager: EventManager) -> None:
    seen: dict[int, list[int]] = {n: [] for n in range(4)}

    def send(thread: int) -> None:
        for number in range(2000):
            manager.call_soon_threadsafe(seen[thread].append, number)

    threads = [threading.Thread(target=send, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    turn_until(manager, lambda: all(len(numbers) == 2000 for numbers in seen.values()))
    for thread in threads:
        thread.join()
    assert all(numbers == list(range(2000)) for numbers in seen.values())


def test_a_burst_of_calls_rings_once(manager: EventManager) -> None:
    manager._inbox.asleep = True  # as if the loop waited
    for _ in range(100):
        manager.call_soon_threadsafe(int)
    assert os.read(manager._inbox.read_fd, 100) == b"\0"
    assert manager.run_once(timeout=0) == 100


def test_stats_are_frozen_and_cheap(manual: EventManager, clock: ManualClock) -> None:
    for number in range(10_000):
        manual.create_timer_event(1.0 + number, int)
    clock.advance(100.0)
    manual.run_once()
    began = time.perf_counter()
    for _ in range(10):
        stats = manual.stats()
    assert time.perf_counter() - began < 0.5
    assert stats.timers == 10_000
    assert stats.turns == 1
    assert stats.worst_lag == pytest.approx(99.0, abs=0.2)
    assert stats.lag == stats.worst_lag
    with pytest.raises(AttributeError):
        stats.timers = 0  # type: ignore[misc]


def test_the_manager_is_a_context_manager_and_leaves_no_descriptor() -> None:
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with EventManager() as manager:
            manager.create_timer_event(0.001, int, repeat=False)
            manager.create_signal_event(signal.SIGUSR1, int).cancel()
            manager.execute_work(int)
            manager.loop()
    assert set(os.listdir("/proc/self/fd")) == before
