"""What of the outbox is written when: the loop's side of the disk. ``outbox_writer`` does it on its thread.

One job is under way at a time. Whatever has come up when it ends, and is due, is the next one. While the disk does not
take anything, readings stay in memory, ``strict`` lets them go unwritten, and it is tried again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.errors import OutboxBusy
from agent.events import EventManager, TimerEvent
from agent.logline import line
from agent.model import Reading
from agent.outbox_alarm import NEVER, Alarm
from agent.outbox_health import Health
from agent.outbox_lane import KEEP, Lane
from agent.outbox_notes import Notes, OutboxClock
from agent.outbox_owner import Owner
from agent.outbox_pending import Pending
from agent.outbox_seq import Numbering
from agent.outbox_settings import OutboxSettings
from agent.outbox_store import Contents
from agent.outbox_writer import Answer, Job, Writer

PATIENCE = 2.0
"""Seconds that devices wait for the file to be opened, at the start."""
TYPICAL = 64
"""Bytes of a reading's body, until they are counted."""
STUCK = 5.0
"""Seconds after which a disk that has not answered counts as out of order."""
_ALL = 1 << 62  # a row above all


class Disk:
    """The outbox's file, as the loop sees it."""

    def __init__(
        self,
        manager: EventManager,
        settings: OutboxSettings,
        path: Path,
        clock: OutboxClock,
        owner: Owner,
        *,
        agent: str,
        log: logging.Logger,
    ) -> None:
        self.path = path
        self._notes = Notes(clock)
        self.takeable = 0 if settings.durability == "strict" else _ALL
        """Rows up to this one may be sent."""
        self.numbering = Numbering(self._notes.jump)
        self.health = Health(path, log)
        self.busy: OutboxBusy | None = None
        self._manager = manager
        self._clock = clock
        self._owner = owner
        self._agent = agent
        self._log = log
        self._memory = settings.durability == "memory"
        self._strict = settings.durability == "strict"
        self._pending = Pending(settings.durability, settings.spill_after)
        self._writer = Writer(path, self._post)
        self._devices: list[str] = []
        self._on_open: Callable[[], object] | None = None
        self._on_stopped: Callable[[], object] | None = None
        self._started = self._open = self._known = False
        self._written = 0  # rows up to this one are on disk
        self._job: Job | None = None
        self._job_since = 0.0
        self._look: Lane | None = None  # whose next readings are on their way from the disk
        self._thinning: tuple[Lane, int, int, int] | None = None
        self._thinned: Lane | None = None
        self._passed: set[int] = set()  # rows in flight among them: of a file that turned up late they are not
        self._clock_moved = False
        self._uncounted = 0  # row up to which the file is still to be counted
        self._estimate = (0, 0)
        self._look_at = 0.0
        self._patience: TimerEvent | None = None
        self._alarm = Alarm(manager, self._ring, "outbox.disk")
        self._groups = 0
        self._slowest = 0.0

    def report(self) -> dict[str, Any]:
        """Its part of the status report."""
        return {
            "state": "degraded" if self.health.trouble else "open" if self._open else "closed",
            "reason": self.health.trouble,
            "path": str(self.path),
            "away": sum(lane.away for lane in self._owner.lanes),
            "groups": self._groups,
            "slowest_s": round(self._slowest, 4),
        }

    @property
    def works(self) -> bool:
        """Whether what waits will be written before long."""
        return self._open and self.health.trouble is None

    # --- its life

    def start(self, devices: Sequence[str], on_open: Callable[[], object]) -> None:
        """Open the file. on_open: devices have their numbers, by the file or, where it does not open, by the clock."""
        self._devices = list(devices)
        self._on_open = on_open
        self._started = True
        self._patience = self._manager.create_timer_event(PATIENCE, self._impatient, repeat=False, name="outbox.open")
        self._next()

    def stop(self, on_stopped: Callable[[], object], timeout: float) -> None:
        """Write what is left, with the exact numbers, and close the file; on_stopped within ``timeout`` seconds."""
        self._on_stopped = on_stopped
        if not self._started:
            self._manager.call_soon(on_stopped)
            return
        self.health.retry_at = 0.0  # whatever it was, it is tried once more
        self._manager.create_timer_event(max(timeout, 0.001), self._stopped, repeat=False, name="outbox.stop")
        self._next()

    def _stopped(self) -> None:
        on_stopped, self._on_stopped = self._on_stopped, None
        if on_stopped is not None:
            self._started = False
            self._writer.end()
            on_stopped()

    def reserve(self, devices: Sequence[str], on_reserved: Callable[[], object]) -> None:
        """Devices come while all runs: on_reserved is called when they have their numbers."""
        self._devices += devices
        self.numbering.reserve(devices, on_reserved, wait=self.works)
        self._next()

    # --- what the outbox tells

    def keep(self, readings: Sequence[Reading]) -> None:
        """These are new."""
        self._pending.keep(readings)
        if self._strict or self._alarm.at == NEVER or self._pending.crowded(self._owner.connected):
            self._next()

    def forget(self, row: int) -> None:
        """The reading of this row is acknowledged or dropped."""
        self._pending.forget(row)

    def settled(self) -> None:
        """A number of readings were forgotten, or the link is lost."""
        self._pending.trim()
        self._next()

    def clock_set(self) -> None:
        """The clock's offset is another one: it is written now, and not along with the next readings."""
        self._clock_moved = True
        self._next()

    def look(self) -> None:
        """Somebody has taken what was in memory, or wants to: read on, where there is more."""
        if self._job is None and self._open and self._wanted() is not None:
            self._next()

    def thin(self, lane: Lane, nth: int, after: int, most: int) -> None:
        """Thin what is away: of ``most`` readings after a row, keep every ``nth``."""
        if self._thinning is None and self._thinned is None:
            self._thinning = (lane, nth, after, most)
            self._next()

    # --- jobs

    def _next(self) -> None:
        """Hand over what is due, if the writer is free; else set the alarm for it."""
        if not self._started:
            return
        now = self._manager.now()
        due = self._pending.due(now, self._clock.mono_ns(), self._owner.connected)
        if self._job is None:
            job = self._due(now, due) if self._open else self._opening(now)
            if job is not None:
                self._job, self._job_since = job, now
                self._writer.hand(job)
        if self._job is not None:
            due = NEVER if self.health.trouble else self._job_since + STUCK
        elif self.health.trouble or not self._open:
            due = self.health.retry_at
        self._alarm.set(due)

    def _opening(self, now: float) -> Job | None:
        if now < self.health.retry_at:
            return None
        job = self._notes.job()
        job.opening = True
        return job

    def _due(self, now: float, due: float) -> Job | None:
        """due: when there is something to write that has a time of its own."""
        stopping = self._on_stopped is not None
        writing = now >= self.health.retry_at and (due <= now or self._extra())
        lane = None if stopping or now < self._look_at else self._wanted()
        if not writing and lane is None:
            return None
        writing = writing or now >= self.health.retry_at  # what is forgotten is not to be read again
        job = self._notes.job()
        if writing:
            self._fill(job, now, stopping, reading=lane is not None)
        if lane is not None and job.count is None:
            self._look = lane
            self._passed = {row for row in lane.flying if row > lane.after}
            job.fetch = (lane.after, lane.upto, KEEP)
        return job

    def _extra(self) -> bool:
        """Whether there is something to write, or to count, that has no time of its own."""
        return bool(
            self.health.trouble  # whether it is over only a write can tell
            or self._clock_moved
            or self._uncounted
            or self.numbering.short
            or self._thinning
            or self._on_stopped is not None
            or (self._strict and self._pending.unwritten)
        )

    def _fill(self, job: Job, now: float, stopping: bool, reading: bool) -> None:
        """All that one commit may carry."""
        pending = self._pending
        if self._uncounted:
            job.count = (0, self._uncounted, _ALL)
        job.insert = pending.group(self._clock.mono_ns(), connected=self._owner.connected, everything=stopping)
        job.delete = pending.deletions(now, along=bool(job.insert) or stopping or reading)
        job.empty = bool(job.delete) and not self._owner.depth
        if stopping and not pending.unwritten:
            job.closing = job.clean = True
            job.numbers = self.numbering.exact()
            if not self._memory:
                job.notes |= self._owner.totals()
        else:
            job.numbers = self.numbering.wanted()
            if job.numbers or self.health.trouble:
                job.notes["agent"] = self._agent
        if self._thinning is not None and not self._uncounted:
            self._thinned, nth, after, most = self._thinning
            self._thinning = None
            job.thin = (nth, after, self._thinned.upto, most)
        if job.writes or self._clock_moved:
            self._notes.add(job, now, at_once=job.closing or self._clock_moved)
            self._clock_moved = False

    def _wanted(self) -> Lane | None:
        """A lane that could have more from the disk, and has little left in memory."""
        if self._uncounted or self._look is not None:
            return None
        for lane in self._owner.lanes:
            if lane.away and len(lane.front) < KEEP // 2:
                return lane
        return None

    # --- answers

    def _post(self, answer: Answer) -> None:
        """From the writer's thread."""
        with suppress(RuntimeError):  # the event manager is closed: nobody waits any more
            self._manager.call_soon_threadsafe(self._answered, answer)

    def _answered(self, answer: Answer) -> None:
        job, self._job = answer.job, None
        look, self._look = self._look, None
        thinned, self._thinned = self._thinned, None
        now = self._manager.now()
        self._slowest = max(self._slowest, now - self._job_since)
        if job.insert:
            self._pending.took(now - self._job_since)
        self._open = not answer.closed
        if answer.busy is not None:
            self._refused(answer.busy)
            return
        if answer.opened is not None:
            self._opened(answer.opened, job)
        elif answer.trouble is not None:
            self._failed(job, answer.trouble, now)
        elif job.writes:
            self._done(job)
            if thinned is not None and answer.thinned is not None:
                self._owner.thinned(thinned, *answer.thinned)
        if job.closing:
            self._stopped()
            return
        self._read(answer, look, now)
        self._next()

    def _read(self, answer: Answer, look: Lane | None, now: float) -> None:
        """What a job has read from the file."""
        fetch = answer.job.fetch
        if answer.counted is not None:
            self._uncounted = 0
            count, size, _ = answer.counted
            self._owner.corrected(count - self._estimate[0], size - self._estimate[1])
        if answer.loaded is not None and look is not None and fetch is not None:
            if look.away and look.after == fetch[0]:  # else the lane has joined another meanwhile
                ended = len(answer.loaded) < fetch[2] and look.upto == fetch[1]
                fresh = [reading for reading in answer.loaded if reading.row not in self._passed]
                self._owner.loaded(look, fresh, all_of_it=ended)
        elif answer.broken is not None and answer.opened is None:
            if answer.broken != answer.trouble:  # else `_failed` has counted it
                self.health.failed(answer.broken, now)
            self._look_at = self.health.retry_at
            self._without()

    def _opened(self, contents: Contents, job: Job) -> None:
        """The file is open; or it was replaced or opened again, and what is in memory has to be written anew."""
        if contents.salvaged:
            self._log.error(line("outbox.damaged", reason=contents.salvaged))
        self._notes.found(contents.saved_wall_ns, contents.boot)
        floor = self._notes.jump() if contents.salvaged and not contents.numbers else 1
        self.numbering.begin(contents.numbers, self._devices, floor)
        self.health.retry_at = 0.0
        if self._known:
            self._pending.write_again(reading for lane in self._owner.lanes for reading in lane.in_memory())
            self._pending.delete_again(job.delete)
            return
        self._known = True
        if contents.agent not in (None, self._agent):
            reason = "agent.id has changed: what waits goes out by the new name"
            self._log.warning(line("outbox.renamed", path=self.path, was=contents.agent, reason=reason))
        count, size = contents.count, contents.size
        if count is None or size is None:
            count = contents.last - contents.first + 1
            size = count * TYPICAL
            self._estimate, self._uncounted = (count, size), contents.last
        self._owner.found(count, size, contents.last)
        self._written = self._pending.handed = contents.last
        if self._strict:
            self.takeable = self._written
        if not self.numbering.short:  # no devices: no range to wait for
            self._begin()

    def _done(self, job: Job) -> None:
        self._groups += 1
        self._written = max(self._written, job.insert[-1].row if job.insert else 0)
        self._notes.written(job)
        if job.numbers and not job.clean:
            self.numbering.confirm(job.numbers)
            self._begin()
        self.health.works(self._manager.now())
        if self._strict:
            self.takeable = self._written
        if job.insert:
            self._owner.stored(self._written)
            if self._strict:
                self._owner.on_ready()

    def _failed(self, job: Job, reason: str, now: float) -> None:
        """Nothing of the job is on disk: it is taken back, and readings go on in memory alone."""
        self._pending.take_back(job.insert, job.delete)
        self.health.failed(reason, now)
        self._without()
        if self._on_stopped is not None:
            if lost := self._owner.depth:
                self._log.error(line("outbox.lost", readings=lost, reason="the disk did not take them"))
            self._stopped()

    def _without(self) -> None:
        """Go on without the disk."""
        self.takeable = _ALL
        self._owner.brake_off(True)
        self.numbering.give_up()
        if self._on_open is not None:
            self.numbering.begin({}, self._devices, self._notes.jump())
            self._begin()
        self._owner.on_ready()

    def _refused(self, busy: OutboxBusy) -> None:
        """Another agent has the file: two would send everything twice."""
        self.busy = busy
        self._log.critical(line("outbox.busy", reason=busy))
        self._manager.terminate()

    def _begin(self) -> None:
        on_open, self._on_open = self._on_open, None
        if self._patience is not None:
            self._patience.cancel()
        if on_open is not None:
            on_open()

    # --- time

    def _impatient(self) -> None:
        if self._on_open is not None:
            reason = f"{self.path} is not open after {PATIENCE:g} s: the disk does not answer"
            self.health.degraded(reason, self._manager.now())
            self._without()

    def _ring(self) -> None:
        now = self._manager.now()
        if self._job is not None and self.health.trouble is None and now - self._job_since >= STUCK:
            self.health.degraded(f"the disk of {self.path} has not answered for {STUCK:g} s", now)
            self._without()
        self._next()
