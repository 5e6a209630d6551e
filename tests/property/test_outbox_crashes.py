"""The outbox and its file against a model, over whatever a disk, a link and a power switch can do, in whatever order.

The writer's work is the real one, on a real file, but done when a step says so: each crash falls between any two steps.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.clock import Clock, ClockSettings
from agent.events import EventManager, ManualClock
from agent.model import Reading
from agent.outbox import Outbox
from agent.outbox_settings import OutboxSettings
from agent.outbox_store import Store
from agent.outbox_writer import Answer, Job, Writer

DEVICES = ("a", "b")
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
"""A disk's own time to write is of no use here."""

steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 9)),
        st.tuples(st.just("take"), st.integers(1, 9)),
        st.tuples(st.just("take live"), st.integers(1, 9)),
        st.tuples(st.just("ack"), st.integers(0, 12)),
        st.tuples(st.just("up"), st.just(0)),
        st.tuples(st.just("down"), st.just(0)),
        st.tuples(st.just("disk"), st.integers(1, 4)),
        st.tuples(st.just("bad disk"), st.integers(1, 2)),
        st.tuples(st.just("time"), st.sampled_from([1, 30, 300, 2000, 40_000])),
        st.tuples(st.just("crash"), st.just(0)),
        st.tuples(st.just("stop"), st.just(0)),
    ),
    max_size=70,
)


class StepWriter(Writer):
    """Does the real work on the thread of the test, one job at each ``step``."""

    def __init__(self, path: Path, answer: Callable[[Answer], object]) -> None:
        super().__init__(path, answer)
        self.job: Job | None = None

    def hand(self, job: Job) -> None:
        assert self.job is None, "two jobs at once"
        self.job = job

    def step(self, *, fail: bool = False) -> None:
        job, self.job = self.job, None
        if job is None:
            return
        with patch.object(Store, "commit", _full) if fail else patch.object(Store, "commit", _COMMIT):
            self._answer(self._do(job))

    def end(self) -> None:
        self._close()


_COMMIT = Store.commit


def _full(_store: Store) -> None:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    raise error


class World:
    """One outbox after another on the same file, and all that was ever put into them."""

    def __init__(self, path: Path, options: dict[str, Any]) -> None:
        self.path = path
        self.options = options
        self.time = ManualClock()
        self.number = 0
        self.put_in: dict[tuple[str, int], int] = {}  # (device, seq) -> its number in order of arrival
        self.acked: set[int] = set()
        self.lost: set[int] = set()
        self.again: set[int] = set()
        self.highest: dict[str, int] = {}
        self.start()

    def mono_ns(self) -> int:
        return int(self.time.now() * 1e9)

    def wall_ns(self) -> int:
        return 2 * 10**18 + self.mono_ns()

    def start(self) -> None:
        self.manager = EventManager(self.time, on_callback_error=_raise)
        self.time.advance(0.1)  # no process starts in the same moment
        clock = Clock(ClockSettings(trust="always"), mono_ns=self.mono_ns, wall_now_ns=self.wall_ns)
        clock._boot_id = "boot"
        with patch("agent.outbox_disk.Writer", StepWriter):
            self.outbox = Outbox(
                self.manager, OutboxSettings.model_validate({"path": self.path, **self.options}), clock, agent="x"
            )
        writer = self.outbox._disk._writer
        assert isinstance(writer, StepWriter)
        self.writer = writer
        self.open = False
        self.flying: dict[bool, list[tuple[int, Reading]]] = {False: [], True: []}
        self.last = {(live, device): -1 for live in (False, True) for device in DEVICES}  # taken on this connection
        self.outbox.start(DEVICES, self._opened)

    def _opened(self) -> None:
        self.open = True

    def turn(self) -> None:
        while self.manager.run_once(0):
            pass

    def put(self, count: int) -> None:
        if not self.open:
            return
        device = DEVICES[count % 2]
        made = []
        for _ in range(count):
            seq = self.outbox.next_seq(device)
            assert (device, seq) not in self.put_in, "no number is given twice"
            if self.highest.get(device, 0) < 10**12:  # by the clock, for the disk did not answer, and left no trace
                assert seq > self.highest.get(device, 0), "numbers grow"
            self.highest[device] = seq
            self.put_in[device, seq] = self.number
            made.append(Reading(device, seq, self.mono_ns(), b"{}"))
            self.number += 1
        self.outbox.put(made)

    def take(self, count: int, live: bool) -> None:
        for reading in self.outbox.take(count, live=live):
            number = self.put_in[reading.device, reading.seq]
            assert number > self.last[live, reading.device], "in order, and once on each connection"
            self.last[live, reading.device] = number
            if self.options["durability"] == "strict" and not self.outbox._disk.health.trouble:
                assert (reading.device, reading.seq) in self.on_disk(), "strict: on disk before it is sent"
            assert number not in self.acked or number in self.again, "acknowledged for good"
            self.flying[live].append((number, reading))

    def ack(self, place: int) -> None:
        for flying in self.flying.values():
            if place < len(flying):
                number, reading = flying.pop(place)
                self.outbox.ack([reading])
                self.acked.add(number)
                return

    def up(self) -> None:
        self.outbox.link_up()

    def down(self) -> None:
        self.outbox.rewind()
        self.flying = {False: [], True: []}
        self.last = dict.fromkeys(self.last, -1)

    def on_disk(self) -> set[tuple[str, int]]:
        with sqlite3.connect(self.path) as db:
            try:
                return set(db.execute("SELECT name, seq FROM reading JOIN device ON device.id = reading.device"))
            except sqlite3.OperationalError:
                return set()  # not made yet

    def end(self) -> None:
        """This process is no more. What of it is on disk, and only that, comes again."""
        self.manager.close()
        self.writer._close()
        kept = {self.put_in[key] for key in self.on_disk()}
        self.lost |= set(self.put_in.values()) - kept - self.acked
        self.again |= kept & self.acked  # not deleted yet: comes twice
        self.start()

    def crash(self) -> None:
        durability, unwritten = self.options["durability"], self.outbox._disk._pending
        if durability == "strict" and self.writer.job is None and not self.outbox._disk.health.trouble:
            assert not unwritten.unwritten, "strict: a commit has begun for all that was read"
        self.end()

    def stop(self) -> None:
        if not self.open:
            return
        stopped: list[bool] = []
        self.outbox.stop(lambda: stopped.append(True), 5.0)
        for _ in range(100):
            self.writer.step()
            self.turn()
            if stopped:
                break
        assert stopped
        before = set(self.lost)
        self.end()
        if self.options["durability"] != "memory":
            assert self.lost == before, "a clean stop loses nothing"

    def finish(self) -> None:
        """A good disk and a good link: everything arrives that was not lost, and nothing else."""
        for _ in range(10_000):
            if self.open and not self.outbox.depth and self.writer.job is None:
                break
            self.time.advance(31.0)
            self.turn()
            self.writer.step()
            self.turn()
            for live in (False, True):
                self.take(50, live)
                while self.flying[live]:
                    number, reading = self.flying[live].pop(0)
                    self.outbox.ack([reading])
                    self.acked.add(number)
        assert not self.outbox.depth
        assert self.outbox.size == 0
        assert self.outbox.damaged == 0
        assert self.acked | self.lost == set(range(self.number))
        assert not self.outbox.dropped


def _raise(_event: object, error: BaseException) -> None:
    raise error


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    steps=steps,
    durability=st.sampled_from(["memory", "spill", "strict"]),
    replay=st.sampled_from(["fifo", "live_first"]),
)
def test_nothing_is_lost_repeated_or_out_of_order_but_what_a_crash_may_cost(
    steps: list[tuple[str, int]], durability: str, replay: str
) -> None:
    with (
        tempfile.TemporaryDirectory(dir=MEMORY) as folder,
        patch("agent.outbox_lane.KEEP", 4),
        patch("agent.outbox_disk.KEEP", 4),
        patch("agent.outbox_pending.GROUP_MOST", 7),
        patch("agent.outbox_pending.GROUP_LARGEST", 7),
        patch("agent.outbox_pending.CROWD", 20),
        patch("agent.outbox_seq.FIRST_RANGE", 40),
    ):
        world = World(Path(folder) / "o.db", {"durability": durability, "replay": replay})
        for step, number in steps:
            match step:
                case "put":
                    world.put(number)
                case "take" | "take live":
                    world.take(number, step == "take live")
                case "ack":
                    world.ack(number)
                case "up":
                    world.up()
                case "down":
                    world.down()
                case "disk" | "bad disk":
                    for _ in range(number):
                        world.writer.step(fail=step == "bad disk")
                        world.turn()
                case "time":
                    world.time.advance(number / 1000)
                case "crash":
                    world.crash()
                case "stop":
                    world.stop()
            world.turn()
        world.down()
        world.finish()
        world.manager.close()
        world.writer._close()
