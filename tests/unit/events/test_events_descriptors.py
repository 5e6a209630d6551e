"""Descriptors: points 5 to 7 of the contract."""

from __future__ import annotations

import os
import pty
import select
import socket
from pathlib import Path

import pytest
from events_support import Pipes, never

from agent.events import Dispatch, EventManager


def lost(caplog: pytest.LogCaptureFixture, name: str) -> int:
    return sum("descriptor.lost" in r.getMessage() and name in r.getMessage() for r in caplog.records)


def test_05_a_second_event_for_a_descriptor_is_refused(manual: EventManager, pipes: Pipes) -> None:
    r, _ = pipes(full=True)
    event = manual.create_socket_event(r, on_readable=lambda: os.read(r, 1), name="first")
    with pytest.raises(ValueError, match="'first'"):
        manual.create_socket_event(r, on_readable=int, name="second")
    assert event.active
    assert manual.run_once() == 1
    event.pause()  # paused, it still has the number
    with pytest.raises(ValueError, match="'first'"):
        manual.create_socket_event(r, on_readable=int)
    event.cancel()
    manual.create_socket_event(r, on_readable=int).cancel()


def test_05_cancel_reaches_an_event_of_the_same_turn(manual: EventManager, pipes: Pipes) -> None:
    calls: list[int] = []
    events = {}
    for _ in range(10):
        r, _ = pipes(full=True)

        def call(r: int = r) -> None:
            calls.append(r)
            for other, event in events.items():
                if other != r:
                    event.cancel()

        events[r] = manual.create_socket_event(r, on_readable=call)
    assert manual.run_once() == 1
    assert len(calls) == 1
    assert sum(event.fired for event in events.values()) == 1


def test_05_a_timer_of_the_same_turn_may_cancel_a_ready_descriptor(manual: EventManager, pipes: Pipes) -> None:
    r, _ = pipes(full=True)
    event = manual.create_socket_event(r, on_readable=never)
    manual.create_timer_event(1.0, event.cancel, first_after=0.0, repeat=False)
    assert manual.run_once() == 1
    assert manual.run_once() == 0


def test_05_a_new_event_with_a_reused_number_gets_nothing_of_the_old_one(manual: EventManager, pipes: Pipes) -> None:
    first, _ = pipes(full=True)
    second, _ = pipes(full=True)
    calls: list[str] = []
    reused: list[int] = []

    def swap(own: int, other: int) -> None:
        os.read(own, 1)
        old[other].cancel()
        os.close(other)
        empty, _ = pipes()  # the lowest free number: the other's
        reused.append(empty)
        manual.create_socket_event(empty, on_readable=lambda: calls.append("new"))

    old = {
        first: manual.create_socket_event(first, on_readable=lambda: swap(first, second)),
        second: manual.create_socket_event(second, on_readable=lambda: swap(second, first)),
    }
    assert manual.run_once() == 1
    assert reused[0] in (first, second)
    assert calls == []
    assert manual.run_once() == 0
    assert calls == []


def test_05_a_timer_that_swaps_a_ready_number_does_not_mislead_it(manual: EventManager, pipes: Pipes) -> None:
    """The report is older than the timer's callback: what it says about the number is about the former file."""
    ready, _ = pipes(full=True)
    old = manual.create_socket_event(ready, on_readable=never)
    calls: list[str] = []

    def swap() -> None:
        old.cancel()
        os.close(ready)
        empty, _ = pipes()
        assert empty == ready
        manual.create_socket_event(empty, on_readable=lambda: calls.append("new"))

    manual.create_timer_event(1.0, swap, first_after=0.0, repeat=False)
    assert manual.run_once() == 1
    assert calls == []


def test_06_a_hang_up_arrives_at_the_reader(manual: EventManager, pipes: Pipes) -> None:
    r, w = pipes()
    seen: list[bytes] = []
    event = manual.create_socket_event(r, on_readable=lambda: (seen.append(os.read(r, 9)), event.cancel()))
    os.close(w)
    assert manual.run_once() == 1
    assert seen == [b""]


def test_06_an_error_arrives_at_the_writer_if_there_is_no_reader(manual: EventManager, pipes: Pipes) -> None:
    r, w = pipes()
    errors: list[OSError] = []

    def write() -> None:
        try:
            os.write(w, b"x")
        except BrokenPipeError as error:
            errors.append(error)
            event.cancel()

    event = manual.create_socket_event(w, on_writable=write)
    event.want_writable(False)
    assert manual.run_once() == 0
    os.close(r)
    assert manual.run_once() == 1
    assert len(errors) == 1


def test_06_a_vanished_pty_reports_through_the_reader(manual: EventManager) -> None:
    master, slave = pty.openpty()
    os.set_blocking(slave, False)
    errors: list[int] = []

    def read() -> None:
        try:
            data = os.read(slave, 100)
        except OSError as error:
            errors.append(error.errno)
        else:
            errors.append(len(data))
        event.cancel()
        os.close(slave)

    event = manual.create_socket_event(slave, on_readable=read)
    os.close(master)
    assert manual.run_once() == 1
    assert errors in ([5], [0])  # EIO, or end of file
    assert manual.run_once() == 0


def test_06_closed_behind_our_back_with_a_duplicate_alive(
    manual: EventManager, pipes: Pipes, caplog: pytest.LogCaptureFixture
) -> None:
    """epoll reports the closed number for ever, and nothing can be done about the entry but a new epoll."""
    r, _ = pipes(full=True)
    pipes.fds.append(os.dup(r))
    event = manual.create_socket_event(r, on_readable=never, name="ghost")
    other, w = pipes()
    calls: list[bytes] = []
    manual.create_socket_event(other, on_readable=lambda: calls.append(os.read(other, 1)))
    os.close(r)
    assert manual.run_once() == 0
    assert not event.active
    assert manual.run_once() == 0
    assert not select.select([manual._poller.fileno], [], [], 0)[0], "the new epoll is silent"
    os.write(w, b"y")
    assert manual.run_once() == 1
    assert calls == [b"y"], "the others were taken along"
    assert lost(caplog, "ghost") == 1


def test_06_closed_after_it_has_worked_for_a_while(
    manual: EventManager, pipes: Pipes, caplog: pytest.LogCaptureFixture
) -> None:
    r, w = pipes()
    event = manual.create_socket_event(r, on_readable=lambda: os.read(r, 1), name="ghost")
    pipes.fds.append(os.dup(r))
    for _ in range(3):
        os.write(w, b"x")
        assert manual.run_once() == 1
    os.write(w, b"x")
    os.close(r)
    assert manual.run_once() == 0
    assert not event.active
    assert lost(caplog, "ghost") == 1


def test_06_closed_in_the_middle_of_a_busy_run_of_the_loop(
    manager: EventManager, pipes: Pipes, caplog: pytest.LogCaptureFixture
) -> None:
    r, w = pipes(full=True)
    ghost, _ = pipes(full=True)
    calls = {"busy": 0, "ghost": 0}

    def busy() -> None:
        os.read(r, 1)
        os.write(w, b"x")
        calls["busy"] += 1
        if calls["busy"] == 1000:
            pipes.fds.append(os.dup(ghost))
            os.close(ghost)
        if calls["busy"] == 5000:
            manager.terminate()

    def ghostly() -> None:
        calls["ghost"] += 1

    manager.create_socket_event(r, on_readable=busy)
    event = manager.create_socket_event(ghost, on_readable=ghostly, name="ghost")
    manager.loop()
    assert not event.active
    assert calls["ghost"] <= 1000 + 130, "found out within 128 turns"
    assert lost(caplog, "ghost") == 1


def test_06_a_read_that_fails_with_ebadf_tells_at_once(
    manager: EventManager, pipes: Pipes, caplog: pytest.LogCaptureFixture
) -> None:
    r, _ = pipes(full=True)
    pipes.fds.append(os.dup(r))
    calls: list[int] = []

    def read() -> None:
        calls.append(1)
        if len(calls) == 1:
            os.close(r)
        else:
            os.read(r, 1)

    event = manager.create_socket_event(r, on_readable=read, name="ghost")
    manager.create_timer_event(0.05, manager.terminate, repeat=False)
    manager.loop()
    assert not event.active
    assert len(calls) <= 2
    assert lost(caplog, "ghost") == 1


def test_06_closed_and_replaced_by_another_file(
    manual: EventManager, pipes: Pipes, caplog: pytest.LogCaptureFixture
) -> None:
    """The number is somebody else's now, and the old file lives on in a duplicate."""
    r, _ = pipes(full=True)
    pipes.fds.append(os.dup(r))
    event = manual.create_socket_event(r, on_readable=never, name="ghost")
    stranger, _ = pipes()
    os.dup2(stranger, r)
    assert manual.run_once() == 0
    assert not event.active
    assert lost(caplog, "ghost") == 1


@pytest.mark.parametrize("duplicate", [False, True], ids=["alone", "with a duplicate"])
@pytest.mark.parametrize("paused", [False, True], ids=["active", "paused"])
def test_06_a_dead_event_yields_its_number(
    manual: EventManager, pipes: Pipes, caplog: pytest.LogCaptureFixture, duplicate: bool, paused: bool
) -> None:
    r, w = pipes(full=True)
    if duplicate:
        pipes.fds.append(os.dup(r))
    old = manual.create_socket_event(r, on_readable=never, name="ghost")
    if paused:
        old.pause()
    os.close(r)
    again, other = pipes()
    assert again == r
    calls: list[bytes] = []
    new = manual.create_socket_event(again, on_readable=lambda: calls.append(os.read(again, 9)), name="heir")
    assert not old.active
    assert new.active
    assert manual.run_once() == 0, "what the old file has to say is not the heir's"
    os.write(other, b"mine")
    assert manual.run_once() == 1
    assert calls == [b"mine"]
    assert lost(caplog, "ghost") == 1
    assert manual.stats().descriptors == 1
    assert w >= 0


def test_06_closed_before_it_was_cancelled(manual: EventManager, pipes: Pipes) -> None:
    """The wrong way round, with a duplicate alive: the entry stays behind, until the number turns up again."""
    r, _ = pipes(full=True)
    pipes.fds.append(os.dup(r))
    event = manual.create_socket_event(r, on_readable=never)
    os.close(r)
    event.cancel()
    assert manual.run_once() == 0
    assert not select.select([manual._poller.fileno], [], [], 0)[0], "the ghost was laid"
    again, w = pipes()
    assert again == r
    calls: list[bytes] = []
    manual.create_socket_event(again, on_readable=lambda: calls.append(os.read(again, 9)))
    assert manual.run_once() == 0
    os.write(w, b"x")
    assert manual.run_once() == 1


def test_06_cancelled_late_and_registered_at_once(manual: EventManager, pipes: Pipes) -> None:
    r, _ = pipes(full=True)
    pipes.fds.append(os.dup(r))
    event = manual.create_socket_event(r, on_readable=never)
    os.close(r)
    event.cancel()
    again, _ = pipes()
    assert again == r
    manual.create_socket_event(again, on_readable=never)
    for _ in range(3):
        assert manual.run_once() == 0


def test_06_resume_notices_a_closed_descriptor(
    manual: EventManager, pipes: Pipes, caplog: pytest.LogCaptureFixture
) -> None:
    r, _ = pipes(full=True)
    event = manual.create_socket_event(r, on_readable=never, name="ghost")
    event.pause()
    os.close(r)
    event.resume()
    assert not event.active
    assert lost(caplog, "ghost") == 1
    assert manual.stats().descriptors == 0


def test_06_a_regular_file_is_refused(manual: EventManager, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file, pytest.raises(ValueError, match="regular file"):
        manual.create_socket_event(file, on_readable=int)


def test_06_what_is_not_open_is_refused(manual: EventManager, pipes: Pipes) -> None:
    r, _ = pipes()
    os.close(r)
    with pytest.raises(ValueError, match="cannot be watched"):
        manual.create_socket_event(r, on_readable=int)
    closed = socket.socket()
    closed.close()
    with pytest.raises(ValueError, match="cannot be watched"):
        manual.create_socket_event(closed, on_readable=int)
    with pytest.raises(ValueError, match="on_readable"):
        manual.create_socket_event(pipes()[0])


def test_07_every_ready_descriptor_is_served_once_a_turn(manual: EventManager, pipes: Pipes) -> None:
    order: list[int] = []
    for _ in range(20):
        r, _ = pipes(full=True)
        manual.create_socket_event(r, on_readable=lambda r=r: order.append(r))  # never empties it
    for _ in range(3):
        order.clear()
        assert manual.run_once() == 20
        assert len(set(order)) == 20


def test_07_readable_and_writable_at_once_waits_for_the_others(manual: EventManager) -> None:
    order: list[str] = []
    ends = [socket.socketpair() for _ in range(3)]
    for number, (near, far) in enumerate(ends):
        far.send(b"x")
        manual.create_socket_event(
            near, on_readable=lambda n=number: order.append(f"r{n}"), on_writable=lambda n=number: order.append(f"w{n}")
        )
    assert manual.run_once() == 6
    assert sorted(order[:3]) == ["r0", "r1", "r2"]
    assert sorted(order[3:]) == ["w0", "w1", "w2"]
    for pair in ends:
        for end in pair:
            end.close()


def test_07_a_busy_descriptor_holds_up_nothing_else(manager: EventManager, pipes: Pipes) -> None:
    r, w = pipes(full=True)
    turns = 0

    def busy() -> None:
        nonlocal turns
        turns += 1
        os.read(r, 1)
        os.write(w, b"x")

    manager.create_socket_event(r, on_readable=busy, name="busy")
    seen: dict[str, int] = {}
    manager.create_timer_event(0.01, lambda: seen.setdefault("timer", turns), repeat=False)
    manager.execute_work(int, on_done=lambda _: seen.setdefault("work", turns))
    manager.call_soon_threadsafe(lambda: seen.setdefault("call", turns))
    manager.create_timer_event(0.05, manager.terminate, repeat=False)
    manager.loop()
    assert set(seen) == {"timer", "work", "call"}
    assert turns > seen["timer"] > seen["call"]


def test_07_more_ready_than_one_report_holds(manual: EventManager, pipes: Pipes) -> None:
    counts: dict[int, int] = {}
    for _ in range(300):
        r, _ = pipes(full=True)
        counts[r] = 0

        def count(r: int = r) -> None:
            counts[r] += 1

        manual.create_socket_event(r, on_readable=count)
    for _ in range(4):
        manual.run_once()
    assert set(counts.values()) == {4}


def test_handle_want_writable_pause_and_resume(manual: EventManager) -> None:
    near, far = socket.socketpair()
    order: list[str] = []
    event = manual.create_socket_event(
        near, on_readable=lambda: order.append("r"), on_writable=lambda: order.append("w")
    )
    assert manual.run_once() == 1  # wanted from the start
    event.want_writable(False)
    assert manual.run_once() == 0
    far.send(b"x")
    event.pause()
    event.pause()
    assert manual.run_once() == 0
    event.want_writable(True)
    assert manual.run_once() == 0
    event.resume()
    assert manual.run_once() == 2
    assert order == ["w", "r", "w"]
    event.cancel()
    event.resume()
    event.want_writable(False)
    assert manual.run_once() == 0
    near.close()
    far.close()


def test_handle_a_paused_descriptor_that_hangs_up_does_not_spin(manual: EventManager, pipes: Pipes) -> None:
    r, w = pipes()
    calls: list[bytes] = []
    event = manual.create_socket_event(r, on_readable=lambda: calls.append(os.read(r, 1)))
    event.pause()
    os.close(w)
    manual.run_once()
    for _ in range(3):
        turns = manual.stats().turns
        assert manual.run_once() == 0
        assert not select.select([manual._poller.fileno], [], [], 0)[0]
        assert manual.stats().turns == turns + 1
    event.resume()
    assert manual.run_once() == 1
    assert calls == [b""]


def test_handle_without_on_writable_cannot_want_it(manual: EventManager, pipes: Pipes) -> None:
    event = manual.create_socket_event(pipes()[0], on_readable=int)
    with pytest.raises(ValueError, match="on_writable"):
        event.want_writable(True)
    event.want_writable(False)


def test_handle_keeps_a_socket_alive_that_nobody_else_holds(manual: EventManager) -> None:
    near, far = socket.socketpair()
    event = manual.create_socket_event(near, on_readable=lambda: calls.append(1))
    calls: list[int] = []
    assert event.fileno() == near.fileno()
    del near
    far.send(b"x")
    assert manual.run_once() == 1
    event.cancel()
    far.close()


def test_many_descriptors_beyond_select_s_limit(pipes: Pipes) -> None:
    """An epoll with a number that select(2) cannot name waits in whole milliseconds, and works."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1400:
        pytest.skip("the hard limit of open files is too low")
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    try:
        while max(pipes.fds, default=0) < 1100:
            pipes()
        with EventManager() as manager:
            assert manager._poller.fileno >= 1024
            fired: list[float] = []
            timer = manager.create_timer_event(0.005, lambda: fired.append(manager.now()), repeat=False)
            due = timer.due or 0.0
            r, _ = pipes(full=True)
            manager.create_socket_event(r, on_readable=lambda: os.read(r, 1))
            manager.create_timer_event(0.02, manager.terminate, repeat=False)
            manager.loop()
            assert fired[0] >= due
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("dispatch", list(Dispatch))
def test_a_descriptor_may_be_closed_right_after_cancel(manual: EventManager, pipes: Pipes, dispatch: Dispatch) -> None:
    r, _ = pipes(full=True)
    event = manual.create_socket_event(r, on_readable=never, dispatch=dispatch)
    event.cancel()
    os.close(r)
    assert manual.run_once() == 0
    assert manual._descriptors._suspects == set()
