"""Races: threads, signals, time-outs and closed descriptors at the worst moments, many times over."""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time

from events_support import Pipes, never, turn_until

from agent.events import Dispatch, EventManager, ManualClock, WorkRejected, WorkTimeout
from agent.events.work import State


def test_numbers_that_are_closed_and_reused_within_a_turn_for_ever(manager: EventManager) -> None:
    """300 turns in which callbacks close ready sockets and open others, under numbers that are in the batch."""
    dice = random.Random(11)
    pairs: dict[int, tuple[socket.socket, socket.socket]] = {}
    wrong: list[str] = []
    fed: dict[int, int] = {}  # by serial number of the pair: bytes written
    serial = 0
    turns = 0

    def open_one(full: bool) -> None:
        nonlocal serial
        serial += 1
        near, far = socket.socketpair()
        near.setblocking(False)
        mine = serial
        fed[mine] = 0
        pairs[mine] = (near, far)
        events[mine] = manager.create_socket_event(near, on_readable=lambda: read(mine), name=f"s{mine}")
        if full:
            far.send(b"x")
            fed[mine] += 1

    def close_one(which: int) -> None:
        near, far = pairs.pop(which)
        events.pop(which).cancel()
        near.close()
        far.close()

    def read(mine: int) -> None:
        if mine not in pairs:
            wrong.append(f"{mine} is closed")
            return
        try:
            got = len(pairs[mine][0].recv(16))
        except BlockingIOError:
            wrong.append(f"{mine} was called with nothing to read")
            return
        fed[mine] -= got
        for _ in range(dice.randrange(3)):
            if len(pairs) > 4:
                close_one(dice.choice(list(pairs)))
                open_one(full=dice.random() < 0.5)

    events: dict[int, object] = {}  # type: ignore[no-redef]
    for _ in range(20):
        open_one(full=True)
    while turns < 300:
        turns += 1
        for which, (_, far) in list(pairs.items()):
            if dice.random() < 0.5:
                far.send(b"y")
                fed[which] += 1
        manager.run_once(timeout=0)
        assert not wrong, wrong
    for which in list(pairs):
        close_one(which)
    manager.loop()
    assert manager.stats().descriptors == 0


def test_work_from_a_thousand_pieces_with_everything_going_on() -> None:
    """Keys, cancels, time-outs and a full queue at once: every piece ends in exactly one way, keys stay in order."""
    dice = random.Random(5)
    with EventManager(workers=(1, 4), work_queue=50) as manager:
        ends: dict[int, list[str]] = {}
        order: dict[str, list[int]] = {key: [] for key in "abcd"}
        active: dict[str, int] = dict.fromkeys("abcd", 0)
        most: dict[str, int] = dict.fromkeys("abcd", 0)
        cancelled: set[int] = set()
        count = 0

        def job(number: int, key: str | None) -> int:
            if key is not None:
                active[key] += 1
                most[key] = max(most[key], active[key])
                order[key].append(number)
            if number % 50 == 7:
                time.sleep(0.03)
            elif number % 5 == 0:
                time.sleep(0.0005)
            if key is not None:
                active[key] -= 1
            if number % 11 == 3:
                raise KeyError(number)
            return number

        def submit() -> None:
            nonlocal count
            for _ in range(7):
                if count == 1000:
                    feeder.cancel()
                    return
                number, key = count, dice.choice(["a", "b", "c", "d", None])
                count += 1
                ends[number] = []
                try:
                    work = manager.execute_work(
                        *(job, number, key),
                        key=key,
                        weight=dice.choice([0.5, 1.0, 3.0]),
                        timeout=0.02 if number % 50 == 7 else None,
                        on_done=lambda n: ends[n].append("done"),
                        on_error=lambda e, n=number: ends[n].append(type(e).__name__),
                    )
                except WorkRejected:
                    ends[number].append("rejected")
                else:
                    if dice.random() < 0.1:
                        work.cancel()
                        cancelled.add(number)

        feeder = manager.create_timer_event(0.0005, submit)
        manager.loop()
        turn_until(manager, lambda: manager.stats().work.abandoned == 0)
        for number, how in ends.items():
            if number in cancelled:
                assert how == [], number
            else:
                assert len(how) == 1, (number, how)
        assert set(most.values()) == {1}, "never two of a key at a time"
        for numbers in order.values():
            assert numbers == sorted(numbers)
        ways = {how[0] for how in ends.values() if how}
        assert {"done", "KeyError", "WorkTimeout"} <= ways
        stats = manager.stats().work
        assert stats.queued == stats.running == 0
        assert manager._pool._chains == {}
        # What is left of a load is a rounding error.
        assert all(worker.load < 1e-9 for worker in manager._pool._workers)


def test_a_piece_that_comes_as_its_worker_falls_asleep_is_not_overlooked(clock: ManualClock) -> None:
    """3,000 round trips, each begun as the last one ended. The clock stands still: nothing comes to help."""
    with EventManager(clock=clock, workers=(1, 1)) as manager:
        done = 0

        def again(_: object) -> None:
            nonlocal done
            done += 1

        for number in range(3000):
            manager.execute_work(int, on_done=again)
            turn_until(manager, lambda n=number: done == n + 1)
        assert manager.stats().work.starved == 0


def test_a_piece_that_returns_at_the_moment_of_its_timeout_ends_once() -> None:
    with EventManager(workers=(2, 2)) as manager:
        ends: list[str] = []
        for _ in range(100):
            manager.execute_work(
                *(time.sleep, 0.003),
                timeout=0.003,
                key="k",
                on_done=lambda _: ends.append("done"),
                on_error=lambda e: ends.append(type(e).__name__),
            )
        manager.loop()
        assert len(ends) == 100
        assert set(ends) <= {"done", "WorkTimeout"}
        turn_until(manager, lambda: manager.stats().work.abandoned == 0)


def test_a_timeout_while_the_result_lies_in_the_inbox_does_not_take_it_away() -> None:
    with EventManager() as manager:
        done: list[int] = []
        began = threading.Event()
        work = manager.execute_work(lambda: began.set() or 5, timeout=0.01, on_done=done.append, on_error=never)
        assert began.wait(10.0)
        while work.state is not State.FINISHED:
            pass
        manager.execute_work(time.sleep, 0.03)
        turn_until(manager, lambda: done)
        assert done == [5]


def test_timeouts_keep_the_order_of_their_keys() -> None:
    """Each piece of a key times out, is left behind, and only then the next begins."""
    with EventManager(workers=(1, 3)) as manager:
        log: list[tuple[str, int]] = []

        def job(number: int) -> None:
            log.append(("begin", number))
            time.sleep(0.03)
            log.append(("end", number))

        errors: list[BaseException] = []
        for number in range(5):
            manager.execute_work(job, number, key="bus", timeout=0.01, on_error=errors.append)
        manager.loop()
        turn_until(manager, lambda: manager.stats().work.abandoned == 0)
        assert log == [(what, number) for number in range(5) for what in ("begin", "end")]
        assert all(isinstance(error, WorkTimeout) for error in errors)
        assert len(errors) == 5


def test_close_while_everything_runs(pipes: Pipes) -> None:
    """A hundred managers, closed at random moments with work in every state."""
    dice = random.Random(3)
    for _ in range(100):
        manager = EventManager(workers=(1, 3))
        ends: list[str] = []
        for number in range(20):
            manager.execute_work(
                *(time.sleep, dice.choice([0.0, 0.0, 0.0005])),
                key=number % 3 or None,
                on_done=lambda _, ends=ends: ends.append("done"),
                on_error=lambda e, ends=ends: ends.append(type(e).__name__),
            )
        r, _ = pipes(full=True)
        manager.create_socket_event(r, on_readable=lambda r=r: os.read(r, 1), dispatch=Dispatch.WORKER)
        for _ in range(dice.randrange(4)):
            manager.run_once(timeout=dice.choice([0, 0.001]))
        manager.close()
        assert len(ends) == 20, ends
        assert set(ends) <= {"done", "WorkRejected"}


def test_threads_cancel_while_the_loop_runs(manager: EventManager) -> None:
    """cancel() is anybody's: of timers and work, while the loop fires them."""
    timers = [manager.create_timer_event(0.0005 + n * 1e-6, int) for n in range(300)]
    works = [manager.execute_work(time.sleep, 0.0001, key=n % 7) for n in range(300)]

    def cancel() -> None:
        for timer, work in zip(timers, works, strict=True):
            timer.cancel()
            work.cancel()

    threads = [threading.Thread(target=cancel) for _ in range(3)]
    manager.call_soon(lambda: [thread.start() for thread in threads])
    manager.loop()  # ends when all are cancelled
    for thread in threads:
        thread.join()
    manager.run_once(timeout=0)
    assert manager.stats().timers == 0
    assert manager._pool.outstanding == 0


def test_signals_under_load_are_all_heard(manager: EventManager, pipes: Pipes) -> None:
    """One at a time, each sent after the last was heard: a lost one would end the test by its deadline."""
    r, w = pipes(full=True)

    def busy() -> None:
        os.read(r, 1)
        os.write(w, b"x")

    manager.create_socket_event(r, on_readable=busy)
    heard = 0

    def hear(_: int) -> None:
        nonlocal heard
        heard += 1
        if heard == 200:
            manager.terminate()
        else:
            manager.execute_work(os.kill, os.getpid(), signal.SIGUSR1)

    manager.create_signal_event(signal.SIGUSR1, hear)
    manager.create_timer_event(20.0, manager.terminate, repeat=False)
    os.kill(os.getpid(), signal.SIGUSR1)
    manager.loop()
    assert heard == 200


def test_wake_ups_are_never_lost(manager: EventManager) -> None:
    """Ping-pong with a thread, each step after the other's: a lost wake-up stands still until the deadline."""
    count = 0
    turnstile = threading.Semaphore(0)

    def pong() -> None:
        nonlocal count
        count += 1
        turnstile.release()

    def ping() -> None:
        for _ in range(3000):
            manager.call_soon_threadsafe(pong)
            assert turnstile.acquire(timeout=20.0)
        manager.terminate()

    keep = manager.create_timer_event(20.0, manager.terminate)
    thread = threading.Thread(target=ping)
    thread.start()
    manager.loop()
    thread.join()
    keep.cancel()
    assert count == 3000


def test_a_rebuild_in_the_middle_of_a_turn_keeps_everybody(manager: EventManager, pipes: Pipes) -> None:
    """Ghosts are made and laid while other descriptors work, some of them disarmed with a worker at that moment."""
    calls = {"inline": 0, "worker": 0}
    r, w = pipes(full=True)
    far, wfar = pipes(full=True)

    def inline() -> None:
        calls["inline"] += 1
        os.read(r, 1)
        os.write(w, b"x")
        if calls["inline"] % 10 == 0:
            ghost, _ = pipes(full=True)
            pipes.fds.append(os.dup(ghost))
            manager.create_socket_event(ghost, on_readable=int, name="ghost")
            os.close(ghost)
        if calls["inline"] >= 300 and calls["worker"] >= 20:
            manager.terminate()

    def on_worker() -> None:
        calls["worker"] += 1
        os.read(far, 1)
        os.write(wfar, b"x")

    manager.create_socket_event(r, on_readable=inline)
    manager.create_socket_event(far, on_readable=on_worker, dispatch=Dispatch.WORKER)
    manager.create_timer_event(20.0, manager.terminate, repeat=False)
    manager.loop()
    assert calls["inline"] >= 300
    assert calls["worker"] >= 20
    turn_until(manager, lambda: manager.stats().descriptors == 2)
