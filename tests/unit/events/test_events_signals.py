"""Signals: points 8 and 9 of the contract."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from events_support import never, run_python

from agent.events import EventManager


def test_08_callbacks_run_in_the_turn_and_not_inside_the_handler(manager: EventManager) -> None:
    order: list[str] = []
    manager.create_signal_event(signal.SIGUSR1, lambda signum: order.append(f"signal {signum == signal.SIGUSR1}"))

    def callback() -> None:
        order.append("begin")
        os.kill(os.getpid(), signal.SIGUSR1)
        for _ in range(1000):  # time enough for Python to run a handler
            pass
        order.append("end")
        manager.create_timer_event(0.01, manager.terminate, repeat=False)

    manager.create_timer_event(0.001, callback, repeat=False)
    manager.loop()
    assert order == ["begin", "end", "signal True"]


def test_08_all_callbacks_of_a_signal_in_order_of_registration(manual: EventManager) -> None:
    order: list[str] = []
    manual.create_signal_event(signal.SIGUSR1, lambda _, word: order.append(word), "a")
    second = manual.create_signal_event(signal.SIGUSR1, lambda _, word: order.append(word), "b")
    manual.create_signal_event(signal.SIGUSR2, lambda _, word: order.append(word), "other")
    manual.create_signal_event(signal.SIGUSR1, lambda _, word: order.append(word), "c")
    os.kill(os.getpid(), signal.SIGUSR1)
    assert manual.run_once() == 3
    assert order == ["a", "b", "c"]
    second.cancel()
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR2)
    assert manual.run_once() == 3
    assert order == ["a", "b", "c", "a", "c", "other"]


def test_08_one_cancelled_by_an_earlier_callback_is_not_called(manual: EventManager) -> None:
    manual.create_signal_event(signal.SIGUSR1, lambda _: second.cancel())
    second = manual.create_signal_event(signal.SIGUSR1, never)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert manual.run_once() == 1


def test_08_a_signal_ends_a_wait_that_has_no_end(manager: EventManager) -> None:
    """From another thread, at a moment when the main thread surely waits."""
    seen: list[int] = []
    manager.create_signal_event(signal.SIGUSR1, lambda signum: (seen.append(signum), manager.terminate()))

    def send() -> None:
        while not manager._inbox.asleep:
            pass
        os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=send)
    thread.start()
    manager.loop()
    thread.join()
    assert seen == [signal.SIGUSR1]


def test_08_the_kernels_side_of_a_signal_ends_a_wait_that_is_about_to_begin(manager: EventManager) -> None:
    """One that comes after Python's last look and before epoll_wait is heard of by the wake-up pipe alone."""
    manager.create_signal_event(signal.SIGUSR1, lambda _: None)
    assert not manager._inbox.asleep, "nothing that Python does writes into the pipe now"
    signal.raise_signal(signal.SIGUSR1)
    assert os.read(manager._inbox.read_fd, 10) == bytes([signal.SIGUSR1])
    assert manager.run_once() == 1


def test_08_each_delivery_counts(manual: EventManager) -> None:
    event = manual.create_signal_event(signal.SIGUSR1, lambda _: None)
    for _ in range(5):
        signal.raise_signal(signal.SIGUSR1)
    assert manual.run_once() == 5
    assert event.fired == 5


def test_08_workers_and_the_watcher_never_receive_signals(manager: EventManager) -> None:
    blocked: list[set[signal.Signals]] = []

    def ask() -> set[int]:
        return signal.pthread_sigmask(signal.SIG_BLOCK, [])

    manager.execute_work(ask, on_done=blocked.append)
    manager.loop()
    # Signals that the C library keeps for itself cannot be blocked, nor can SIGKILL and SIGSTOP.
    wanted = {s for s in signal.Signals if s not in (signal.SIGKILL, signal.SIGSTOP)}
    assert wanted <= blocked[0]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set(), "our own mask is as it was"
    ours = [manager._watcher._thread, *(t for t in threading.enumerate() if t.name.startswith("events-worker"))]
    seen = 0
    for thread in ours:
        assert thread is not None
        with suppress(ProcessLookupError, FileNotFoundError):  # one of an earlier test's, at its end
            status = Path(f"/proc/self/task/{thread.native_id}/status").read_text().splitlines()
            mask = next(int(line.split()[1], 16) for line in status if line.startswith("SigBlk"))
            assert mask >> (signal.SIGTERM - 1) & 1, thread.name
            seen += 1
    assert seen >= 2


def test_08_close_puts_handlers_and_wakeup_descriptor_back() -> None:
    def mine(*_: object) -> None: ...

    before = signal.signal(signal.SIGUSR1, mine)
    r, w = os.pipe()
    os.set_blocking(w, False)
    wakeup = signal.set_wakeup_fd(w)
    try:
        with EventManager() as manager:
            manager.create_signal_event(signal.SIGUSR1, int)
            manager.create_signal_event(signal.SIGTERM, int)
            assert signal.getsignal(signal.SIGUSR1) is not mine
        assert signal.getsignal(signal.SIGUSR1) is mine
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.set_wakeup_fd(w) == w
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGUSR1, before)
        os.close(r)
        os.close(w)


def test_08_the_last_cancel_puts_the_handler_back(manual: EventManager) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    first = manual.create_signal_event(signal.SIGUSR1, int)
    second = manual.create_signal_event(signal.SIGUSR1, int)
    first.cancel()
    first.cancel()
    assert signal.getsignal(signal.SIGUSR1) is not before
    second.cancel()
    assert signal.getsignal(signal.SIGUSR1) is before
    manual.loop()  # nothing is left


def test_08_two_managers_share_a_process() -> None:
    seen: list[str] = []
    with EventManager() as one, EventManager() as two:
        one.create_signal_event(signal.SIGUSR1, lambda _: seen.append("one"))
        two.create_signal_event(signal.SIGUSR2, lambda _: seen.append("two"))
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR2)
        assert one.run_once(timeout=5.0) == 1
        assert two.run_once(timeout=5.0) == 1
        one.close()
        signal.raise_signal(signal.SIGUSR2)
        assert two.run_once(timeout=5.0) == 1
    assert seen == ["one", "two", "two"]
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL


def test_08_the_loop_may_run_on_another_thread_than_signals_arrive_on() -> None:
    seen: list[int] = []
    with EventManager() as manager:
        manager.create_signal_event(signal.SIGUSR1, lambda signum: (seen.append(signum), manager.terminate()))
        thread = threading.Thread(target=manager.loop)
        thread.start()
        deadline = time.monotonic() + 10.0
        while not manager._inbox.asleep and time.monotonic() < deadline:
            pass
        os.kill(os.getpid(), signal.SIGUSR1)
        thread.join(10.0)
    assert seen == [signal.SIGUSR1]


def test_08_a_signal_that_cannot_be_caught_is_refused(manual: EventManager) -> None:
    for number in (signal.SIGKILL, signal.SIGSTOP, 0, 1000):
        with pytest.raises(ValueError, match="signal"):
            manual.create_signal_event(number, int)
    manual.loop()


def test_08_a_program_ends_by_ctrl_c_after_its_sigint_event_is_gone() -> None:
    result = run_python("""
        import os, signal
        from agent.events import EventManager
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell has it ignored
        manager = EventManager()
        manager.create_signal_event(signal.SIGINT, int).cancel()
        manager.create_timer_event(0.01, os.kill, os.getpid(), signal.SIGINT)
        try:
            manager.loop()
        except KeyboardInterrupt:
            print("interrupted")
            print(manager.run_once(timeout=0) in (0, 1), "the manager is whole")
    """)
    assert result.stdout.split("\n")[:2] == ["interrupted", "True the manager is whole"], result.stderr


def test_09_outside_the_main_thread_it_is_refused_at_the_call(manual: EventManager) -> None:
    errors: list[BaseException] = []

    def create() -> None:
        try:
            manual.create_signal_event(signal.SIGUSR1, int)
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=create)
    thread.start()
    thread.join()
    assert "main thread" in str(errors[0])
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
