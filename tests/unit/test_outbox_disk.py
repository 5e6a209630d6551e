"""The outbox and its disk: what is written when, what a crash leaves, and what becomes of a disk that fails."""

from __future__ import annotations

import itertools
import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from agent.clock import Clock, ClockSettings
from agent.events import EventManager
from agent.model import Reading
from agent.outbox import Outbox
from agent.outbox_lane import KEEP
from agent.outbox_pending import CROWD, GROUP_MOST
from agent.outbox_seq import FIRST_RANGE
from agent.outbox_settings import OutboxSettings
from agent.outbox_store import Boot, Store
from agent.outbox_writer import Writer

PATIENCE = 10.0


class Process:
    """One run of an agent on an outbox: real thread, real file, real time, but no test waits for a certain time."""

    def __init__(self, path: Path, devices: tuple[str, ...] = ("d",), boot: str = "", **settings: object) -> None:
        self.failures: list[BaseException] = []
        self.manager = EventManager(on_callback_error=lambda _event, error: self.failures.append(error))
        self.clock = Clock(ClockSettings(trust="always"))
        self.clock._boot_id = boot
        self.settings = OutboxSettings.model_validate({"path": path, **settings})
        self.outbox = Outbox(self.manager, self.settings, self.clock, agent="a")
        self.opened = False
        self.ready = 0
        self.outbox.on_ready = self._ready
        self.outbox.start(devices, self._opened)

    def _ready(self) -> None:
        self.ready += 1

    def _opened(self) -> None:
        self.opened = True

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            left = deadline - time.monotonic()
            assert left > 0, f"not within {PATIENCE:g} s: {self.outbox.report()}"
            self.manager.run_once(min(left, 0.02))
            assert not self.failures, self.failures

    def start(self) -> Process:
        self.until(lambda: self.opened)
        return self

    def made(self, count: int = 1, device: str = "d", size: int = 0, age: float = 0.0) -> list[Reading]:
        """age: seconds that the readings have been here already."""
        stamp, body = time.monotonic_ns() - int(age * 1e9), b'{"x":"%b"}' % (b"x" * size)
        return [Reading(device, self.outbox.next_seq(device), stamp, body) for _ in range(count)]

    def put(self, count: int = 1, device: str = "d", size: int = 0, age: float = 0.0) -> list[Reading]:
        made = self.made(count, device, size, age)
        self.outbox.put(made)
        return made

    def disk(self) -> dict[str, Any]:
        report: dict[str, Any] = self.outbox.report()["disk"]
        return report

    def idle(self) -> None:
        """Until the writer has done all it was given."""
        self.until(lambda: self.outbox._disk._job is None)

    def drain(self) -> list[Reading]:
        """Take and acknowledge all there is."""
        got: list[Reading] = []

        def some() -> bool:
            taken = self.outbox.take(1000)
            self.outbox.ack(taken)
            got.extend(taken)
            return not self.outbox.depth

        self.until(some)
        return got

    def stop(self) -> None:
        done: list[bool] = []
        self.outbox.stop(lambda: done.append(True), 5.0)
        self.until(lambda: done)
        self.manager.close()

    def crash(self) -> None:
        """What kill -9 leaves: no exact numbers, and the lock let go."""
        self.idle()
        writer = self.outbox._disk._writer
        writer.end()
        deadline = time.monotonic() + PATIENCE
        while writer._lock._descriptor >= 0:
            assert time.monotonic() < deadline
            os.sched_yield()
        self.manager.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


def rows(path: Path) -> list[tuple[str, int]]:
    """What is on disk, as another process sees it."""
    with sqlite3.connect(path) as db:
        query = "SELECT device.name, seq FROM reading JOIN device ON device.id = reading.device ORDER BY reading.id"
        return list(db.execute(query))


def seqs(readings: list[Reading]) -> list[int]:
    return [reading.seq for reading in readings]


def written(process: Process) -> int:
    """Commits so far."""
    count: int = process.disk()["groups"]
    return count


# --- when it is written


def test_spill_writes_nothing_while_acknowledgements_come_in_time(path: Path) -> None:
    process = Process(path).start()
    process.outbox.link_up()
    before = written(process)
    for _ in range(50):
        process.put(3)
        process.outbox.ack(process.outbox.take(10))
    process.idle()
    assert written(process) == before
    assert process.outbox._disk._alarm.at == float("inf")  # nothing to be woken for
    process.crash()
    assert rows(path) == []


def test_spill_writes_what_has_waited_and_the_younger_only_without_a_link(path: Path) -> None:
    process = Process(path, spill_after="1h").start()
    process.outbox.link_up()
    process.outbox.put([*process.made(2, age=3601), *process.made(2, age=3300), *process.made(2)])
    process.until(lambda: len(rows(path)) == 4)
    process.idle()
    assert len(rows(path)) == 4
    process.outbox.rewind()
    process.outbox.put([*process.made(1, age=3601), *process.made(1)])
    process.idle()
    assert len(rows(path)) == 4  # the two that wait since before are not due, and what comes later not before them
    process.crash()


def test_spill_without_a_link_writes_all_when_the_oldest_is_due(path: Path) -> None:
    process = Process(path, spill_after="200ms").start()
    process.put(5)
    process.until(lambda: len(rows(path)) == 5)
    process.crash()


def test_without_a_link_a_flood_does_not_wait_in_memory(path: Path) -> None:
    process = Process(path, spill_after="1h").start()
    process.put(CROWD)
    process.idle()
    assert rows(path) == []
    process.put(1)
    process.until(lambda: len(rows(path)) >= GROUP_MOST)
    process.outbox.link_up()
    process.idle()
    before = len(rows(path))
    process.put(CROWD + 1)
    process.idle()
    assert len(rows(path)) == before  # acknowledgements may come in time
    process.crash()


def test_a_reading_acknowledged_after_it_was_written_is_deleted_soon(path: Path) -> None:
    process = Process(path, spill_after="1ms").start()
    process.put(5)
    process.until(lambda: len(rows(path)) == 5)
    process.outbox.ack(process.outbox.take(3))
    process.until(lambda: rows(path) == [("d", 4), ("d", 5)])
    process.crash()


def test_strict_gives_nothing_away_before_it_is_on_disk(path: Path) -> None:
    process = Process(path, durability="strict").start()
    process.put(3)
    assert process.outbox.take(10) == []
    taken: list[Reading] = []
    while not taken:
        on_disk = rows(path)
        taken = process.outbox.take(10)
        assert not taken or on_disk == [("d", 1), ("d", 2), ("d", 3)]
        process.manager.run_once(0.02)
    process.crash()


def test_strict_puts_into_one_commit_what_came_while_the_writer_was_busy(path: Path) -> None:
    process = Process(path, durability="strict").start()
    before = written(process)
    for _ in range(100):
        process.put()  # the loop does not turn meanwhile, so the first one's commit is under way
    process.until(lambda: len(rows(path)) == 100)
    process.idle()
    assert written(process) - before == 2
    process.crash()


def test_memory_has_nothing_but_numbers_on_disk(path: Path) -> None:
    process = Process(path, durability="memory", spill_after="1ms").start()
    process.put(5, age=1)
    process.outbox.rewind()
    process.idle()
    process.stop()
    assert rows(path) == []
    again = Process(path, durability="memory").start()
    assert seqs(again.put(1)) == [6]
    again.crash()


# --- what the next process finds


def test_after_a_clean_stop_all_goes_on_where_it_was(path: Path) -> None:
    first = Process(path, ("a", "b")).start()
    first.put(3, "a")
    first.put(2, "b")
    first.outbox.ack(first.outbox.take(1))
    first.stop()
    assert not path.with_name("outbox.db-wal").exists()
    second = Process(path, ("a", "b")).start()
    assert second.outbox.report()["depth"] == 4
    more = second.put(1, "a") + second.put(1, "b")
    assert [(r.seq, r.resumed) for r in more] == [(4, False), (3, False)]
    got = second.drain()
    assert [(r.device, r.seq) for r in got] == [("a", 2), ("a", 3), ("b", 1), ("b", 2), ("a", 4), ("b", 3)]
    assert second.outbox.size == 0
    second.stop()


def test_after_a_crash_numbers_go_on_behind_the_range_and_the_first_reading_says_so(path: Path) -> None:
    first = Process(path, durability="strict").start()
    first.put(3)
    first.until(lambda: len(rows(path)) == 3)
    first.crash()
    second = Process(path, durability="strict").start()
    second.put(2)
    got = second.drain()
    assert [(r.seq, r.resumed) for r in got] == [
        (1, False),
        (2, False),
        (3, False),
        (FIRST_RANGE + 1, True),
        (FIRST_RANGE + 2, False),
    ]
    second.crash()


def test_a_crash_is_counted_and_a_clean_stop_need_not_be(path: Path) -> None:
    first = Process(path, durability="strict").start()
    first.put(700, size=10)
    first.until(lambda: len(rows(path)) == 700)
    size = first.outbox.size
    first.crash()
    second = Process(path).start()
    second.until(lambda: second.outbox.report()["depth"] == 700 and second.outbox.size == size)
    second.idle()
    second.stop()
    with sqlite3.connect(path) as db:
        assert dict(db.execute("SELECT key, value FROM meta WHERE key IN ('count', 'size')")) == {
            "count": 700,
            "size": 700 * 18,
        }
    third = Process(path).start()
    assert (third.outbox.depth, third.outbox.size) == (700, size)
    third.crash()


def test_another_agent_on_the_file_is_refused(path: Path) -> None:
    first = Process(path).start()
    second = Process(path)
    second.manager.loop()  # ends by itself
    assert str(second.outbox.busy) == (
        f"{path} is in use by process {os.getpid()}; stop that, or set outbox.path to another file"
    )
    assert not second.opened
    second.manager.close()
    first.stop()


# --- more than memory holds


def test_a_backlog_lives_on_disk_and_comes_back_in_order(path: Path) -> None:
    process = Process(path, spill_after="1ms").start()
    total = 0
    for _ in range(20):
        total += len(process.put(500, size=20))
        process.until(lambda: not process.outbox._disk._pending.unwritten and process.outbox._disk._job is None)
        assert len(list(process.outbox.lanes[0].in_memory())) <= KEEP + 500
    assert process.disk()["away"] == total - KEEP
    assert process.outbox.in_memory < 1_200_000
    taken = process.outbox.take(300)
    process.outbox.rewind()
    assert seqs(taken) == list(range(1, 301))
    got = process.drain()
    assert seqs(got) == list(range(1, total + 1))
    process.until(lambda: rows(path) == [])
    assert (process.outbox.size, process.outbox.in_memory, process.outbox.damaged) == (0, 0, 0)
    process.crash()


def test_live_first_keeps_both_orders_over_lost_links(path: Path) -> None:
    process = Process(path, spill_after="1ms", replay="live_first").start()
    outbox = process.outbox
    live: list[Reading] = []
    old: list[Reading] = []
    for _ in range(3):
        process.put(KEEP + 500)
        process.until(lambda: process.disk()["away"] >= 500)
        outbox.link_up()
        process.put(KEEP + 700)
        process.until(lambda: outbox.lanes[1].away >= 700)
        for _ in range(3):
            outbox.ack(got := outbox.take(100, live=True))
            live += got
            outbox.ack(got := outbox.take(100))
            old += got
        outbox.take(50, live=True)
        outbox.take(50)
        outbox.rewind()
    old += process.drain()
    assert seqs(live) == sorted(seqs(live))
    assert seqs(old) == sorted(seqs(old))
    assert sorted(seqs(live) + seqs(old)) == list(range(1, 3 * (2 * KEEP + 1200) + 1))
    process.crash()


@pytest.mark.parametrize("policy", ["drop_oldest", "thin"])
def test_a_full_disk_share_makes_room_by_policy_and_counts(path: Path, policy: str) -> None:
    process = Process(path, spill_after="1ms", max_bytes=1_000_000, policy=policy).start()
    total = 0
    for _ in range(60):
        total += len(process.put(500, size=100))
        process.until(lambda: not process.outbox._disk._pending.unwritten and process.outbox._disk._job is None)
    assert process.outbox.size <= 1_000_000 + 200 * 500
    got = seqs(process.drain())
    assert got == sorted(set(got))
    assert len(got) + process.outbox.dropped["d"] == total
    if policy == "drop_oldest":
        assert got == list(range(total - len(got) + 1, total + 1))
    else:
        assert got[0] <= 16
        assert max(after - before for before, after in itertools.pairwise(got)) <= 16
    assert process.outbox.size == 0
    process.crash()


def test_the_file_shrinks_when_all_is_delivered(path: Path) -> None:
    process = Process(path, spill_after="1ms").start()
    process.put(3000, size=1000)
    process.until(lambda: len(rows(path)) == 3000)
    large = path.stat().st_size + path.with_name("outbox.db-wal").stat().st_size
    process.drain()
    process.until(lambda: path.stat().st_size + path.with_name("outbox.db-wal").stat().st_size < 200_000)
    assert large > 3_000_000
    process.put(10, age=1)
    process.until(lambda: len(rows(path)) == 10)
    process.crash()


# --- a disk that fails


class BadDisk:
    """Makes the store's statements fail, as SQLite says it of a real disk (tests/chaos has real ones)."""

    def __init__(self) -> None:
        self.code: int | None = None
        self.failed = 0

    def __call__(self, *_args: object) -> None:
        if self.code is not None:
            self.failed += 1
            error = sqlite3.OperationalError("planted")
            error.sqlite_errorcode = self.code
            raise error


@pytest.fixture
def bad(monkeypatch: pytest.MonkeyPatch) -> BadDisk:
    disk = BadDisk()
    commit = Store.commit

    def failing(store: Store) -> None:
        disk()
        commit(store)

    monkeypatch.setattr(Store, "commit", failing)
    monkeypatch.setattr("agent.outbox_health.RETRY_FIRST", 0.01)
    monkeypatch.setattr("agent.outbox_health.RETRY_MOST", 0.02)
    return disk


@pytest.mark.parametrize("durability", ["spill", "strict"])
def test_a_full_disk_costs_nothing_but_what_a_crash_would(
    path: Path, bad: BadDisk, durability: str, caplog: pytest.LogCaptureFixture
) -> None:
    process = Process(path, spill_after="1ms", durability=durability).start()
    process.put(2)
    process.until(lambda: len(rows(path)) == 2)
    bad.code = sqlite3.SQLITE_FULL
    with caplog.at_level(logging.WARNING):
        process.put(3)
        process.until(lambda: bad.failed > 3)
        assert process.disk()["state"] == "degraded"
        assert process.disk()["reason"] == f"the disk of {path} is full; make room"
        got = process.outbox.take(10)  # strict lets go of them, too
        assert seqs(got) == [1, 2, 3, 4, 5]
        process.outbox.ack(got[:3])
        process.outbox.rewind()
        bad.code = None
        process.until(lambda: process.disk()["state"] == "open")
    process.until(lambda: rows(path) == [("d", 4), ("d", 5)])
    told = [record.getMessage().split()[0] for record in caplog.records]
    assert told.count("outbox.recovered") == 1
    assert 1 <= told.count("outbox.degraded") <= 4  # the 1st, 2nd, 4th, 8th ... time
    process.stop()
    again = Process(path).start()
    assert seqs(again.drain()) == [4, 5]
    again.crash()


def test_a_disk_that_recovers_is_noticed_without_a_reading(path: Path, bad: BadDisk) -> None:
    process = Process(path, durability="strict").start()
    bad.code = sqlite3.SQLITE_IOERR
    process.put(1)
    process.until(lambda: process.disk()["state"] == "degraded")
    process.outbox.ack(process.outbox.take(10))
    bad.code = None
    process.until(lambda: process.disk()["state"] == "open")
    process.crash()


@pytest.mark.parametrize("durability", ["spill", "strict"])
def test_devices_rest_while_a_disk_that_works_is_slower_than_they(
    path: Path, durability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(path, durability=durability).start()
    process.idle()
    asked: list[bool] = []
    process.outbox.on_block = asked.append
    hand = process.outbox._disk._writer.hand
    held: list[Any] = []
    monkeypatch.setattr(process.outbox._disk._writer, "hand", held.append)
    with patch("agent.outbox.BRAKE", 3_000_000):
        while not asked:
            process.put(500, size=100)
        assert 3_000_000 < process.outbox.in_memory < 3_300_000
        monkeypatch.setattr(process.outbox._disk._writer, "hand", hand)
        hand(held[0])
        process.until(lambda: asked == [True, False])
        assert process.outbox.in_memory < 1_600_000
    assert not process.outbox.dropped
    process.crash()


def test_nothing_waits_for_a_disk_that_does_not_work(path: Path, bad: BadDisk) -> None:
    process = Process(path, spill_after="1ms").start()
    asked: list[bool] = []
    process.outbox.on_block = asked.append
    with patch("agent.outbox.BRAKE", 1_000_000):
        while not asked:
            process.put(500, size=100)
        bad.code = sqlite3.SQLITE_FULL
        process.until(lambda: asked == [True, False])
        process.put(5000, size=100)
    assert asked == [True, False]
    process.crash()


def test_without_a_disk_memory_has_its_own_bound(path: Path, bad: BadDisk) -> None:
    process = Process(path, spill_after="1ms").start()
    bad.code = sqlite3.SQLITE_FULL
    with patch("agent.outbox.MEMORY_MOST", 2_000_000):
        for _ in range(40):
            process.put(500, size=50)
        assert process.outbox.in_memory < 2_300_000
    got = process.drain()
    assert seqs(got) == list(range(20_001 - len(got), 20_001))
    assert process.outbox.dropped == {"d": 20_000 - len(got)}
    process.crash()


def test_a_disk_that_fails_at_the_end_is_told_with_what_is_lost(
    path: Path, bad: BadDisk, caplog: pytest.LogCaptureFixture
) -> None:
    process = Process(path).start()
    process.put(3)
    bad.code = sqlite3.SQLITE_READONLY
    with caplog.at_level(logging.ERROR):
        process.stop()
    assert "outbox.lost readings=3" in caplog.text


def test_an_end_at_which_nothing_waits_loses_nothing(
    path: Path, bad: BadDisk, caplog: pytest.LogCaptureFixture
) -> None:
    process = Process(path).start()
    bad.code = sqlite3.SQLITE_FULL
    with caplog.at_level(logging.ERROR):
        process.stop()
    assert "outbox.degraded" in caplog.text
    assert "outbox.lost" not in caplog.text


def test_an_attempt_to_open_that_fails_counts_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    process = Process(tmp_path / "file" / "outbox.db")
    with caplog.at_level(logging.ERROR):
        process.start()
    assert caplog.text.count("outbox.degraded") == 1
    assert process.outbox._disk.health._failures == 1
    process.stop()


def test_where_no_file_can_be_made_readings_go_on_with_numbers_of_the_clock(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    process = Process(blocked / "outbox.db").start()
    before = time.time_ns() // 1_000_000
    (reading,) = process.put(1)
    assert before - 10_000 < reading.seq <= before + 10_000
    assert reading.resumed
    assert process.disk()["reason"] == f"{blocked}: File exists; is outbox.path right?"
    assert process.outbox.take(10) == [reading]
    process.stop()


def test_a_file_that_opens_late_comes_first_and_takes_no_number_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Process(path, durability="strict").start()
    first.put(3)
    first.until(lambda: len(rows(path)) == 3)
    first.crash()
    opening = Store.open
    attempts: list[int] = []

    def late(store: Store, boot: Boot) -> Any:
        attempts.append(1)
        if len(attempts) < 3:
            raise OSError(5, "Input/output error", str(store.path))
        return opening(store, boot)

    monkeypatch.setattr(Store, "open", late)
    monkeypatch.setattr("agent.outbox_health.RETRY_FIRST", 0.01)
    second = Process(path, durability="strict").start()
    assert second.disk()["reason"] == f"{path}: Input/output error; look at the kernel's log (dmesg)"
    early = second.put(2)
    assert seqs(early)[0] > 10**12
    flying = second.outbox.take(1)
    assert flying == early[:1]
    second.until(lambda: len(rows(path)) == 5)
    assert [r.seq for r in second.put(1)] == [early[1].seq + 1]
    second.outbox.ack(flying)
    got = second.drain()
    assert seqs(got) == [1, 2, 3, early[1].seq, early[1].seq + 1]
    second.until(lambda: rows(path) == [])
    second.crash()


def test_a_disk_that_does_not_answer_holds_nobody_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.outbox_disk.PATIENCE", 0.02)
    monkeypatch.setattr("agent.outbox_writer.Writer.hand", lambda *_: None)
    process = Process(path).start()
    assert "is not open after 0.02 s: the disk does not answer" in process.disk()["reason"]
    assert process.put(1)[0].resumed
    assert len(process.outbox.take(9)) == 1
    process.manager.close()


def test_a_file_that_is_still_being_opened_at_the_stop_is_waited_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.outbox_disk.PATIENCE", 0.01)
    held: list[Any] = []
    hand = Writer.hand
    monkeypatch.setattr("agent.outbox_writer.Writer.hand", lambda _, job: held.append(job))
    process = Process(path).start()
    process.put(3)
    monkeypatch.setattr("agent.outbox_writer.Writer.hand", hand)
    done: list[bool] = []
    process.outbox.stop(lambda: done.append(True), 5.0)
    process.outbox._disk._writer.hand(held[0])
    process.until(lambda: done)
    process.manager.close()
    assert len(rows(path)) == 3


def test_a_disk_that_hangs_in_a_commit_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(path, durability="strict").start()
    process.idle()
    monkeypatch.setattr("agent.outbox_disk.STUCK", 0.02)
    hand = process.outbox._disk._writer.hand
    held: list[Any] = []
    monkeypatch.setattr(process.outbox._disk._writer, "hand", held.append)
    process.put(2)
    process.until(lambda: process.disk()["state"] == "degraded")
    assert seqs(process.outbox.take(9)) == [1, 2]
    monkeypatch.setattr(process.outbox._disk._writer, "hand", hand)
    hand(held[0])
    process.until(lambda: process.disk()["state"] == "open")
    assert len(rows(path)) == 2
    process.crash()


def test_a_file_damaged_while_we_run_is_replaced_and_written_anew(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    process = Process(path, durability="strict").start()
    process.put(300, size=100)
    process.until(lambda: len(rows(path)) == 300)
    store = process.outbox._disk._writer._store
    assert store is not None
    store._pragma("wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(4096)
        while file.tell() < path.stat().st_size:
            file.write(b"\xa5" * 4096)
    store._pragma("cache_size = 1")
    store._pragma("shrink_memory")
    with caplog.at_level(logging.ERROR):
        process.put(5)
        process.until(lambda: "outbox.damaged" in caplog.text)
    process.until(lambda: len(rows(path)) == 305)
    assert any(".damaged-" in name for name in os.listdir(path.parent))
    process.until(lambda: process.disk()["state"] == "open")
    got = process.drain()
    assert seqs(got) == list(range(1, 306))
    process.stop()


# --- clock


def test_stamps_of_this_boot_are_settled_by_the_clock_of_later(path: Path) -> None:
    first = Process(path, durability="strict").start()
    (reading,) = first.put(1)
    first.until(lambda: len(rows(path)) == 1)
    first.crash()
    second = Process(path).start()
    (got,) = second.drain()
    assert (got.mono_ns, got.wall_ns, got.body) == (reading.mono_ns, None, reading.body)
    second.crash()


def test_the_clocks_offset_and_the_true_time_are_kept_for_the_next_boot(path: Path) -> None:
    first = Process(path, durability="strict").start()
    (reading,) = first.put(1)
    first.until(lambda: len(rows(path)) == 1)
    first.stop()
    before = time.time_ns()
    second = Process(path, boot="another-boot").start()
    assert abs(second.clock._saved_ns - before) < 60_000_000_000
    (got,) = second.drain()
    assert got.wall_ns is not None
    assert abs(got.wall_ns - second.clock.wall_ns(reading.mono_ns)) < 1_000_000
    assert not got.unsynced
    second.stop()


def test_a_step_of_the_clock_is_written_at_once(path: Path) -> None:
    process = Process(path).start()
    process.outbox.link_up()
    process.idle()
    before = written(process)
    process.clock._wall_now_ns = lambda: time.time_ns() + 3600 * 10**9
    process.outbox.clock_set()
    process.idle()
    assert written(process) == before + 1
    process.crash()
    with sqlite3.connect(path) as db:
        ((offset_ns,),) = db.execute("SELECT offset_ns FROM boot")
    assert abs(offset_ns + time.monotonic_ns() - time.time_ns() - 3600 * 10**9) < 10**9


def test_what_is_too_old_is_dropped_as_it_comes_from_the_disk(path: Path) -> None:
    first = Process(path, durability="strict").start()
    first.put(3, age=100)
    first.put(2)
    first.until(lambda: len(rows(path)) == 5)
    first.crash()
    second = Process(path, boot="another-boot", max_age="50s").start()
    assert seqs(second.drain()) == [4, 5]
    assert second.outbox.dropped == {"d": 3}
    second.crash()


def test_the_report_is_json(path: Path) -> None:
    process = Process(path).start()
    report = json.loads(json.dumps(process.outbox.report()))
    assert report["disk"]["state"] == "open"
    assert report["disk"]["path"] == str(path)
    process.stop()
