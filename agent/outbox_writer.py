"""The one thread that works with the outbox's disk: one job at a time, each at most one commit.

The loop hands over a job when the writer is free and gets the answer in a turn of its own, so it never waits for a
disk; what comes up meanwhile is the next job's. That is group commit: the slower the disk, the larger the groups.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from agent.errors import OutboxBusy
from agent.events.threads import start_thread
from agent.model import Reading
from agent.outbox_file import Lock, error_text, open_store, replace
from agent.outbox_store import Boot, Contents, Store, damaged, disk_full

_ROOMY = 1_000_000
"""Bytes of a file without readings that are given back to the disk."""


@dataclass(slots=True)
class Job:
    """What shall be done, all of it in one commit; reading comes after it."""

    boot: Boot
    wall_ns: int
    """Now, by the wall clock: dates a damaged file."""
    opening: bool = False
    insert: Sequence[Reading] = ()
    delete: Sequence[int] = ()
    numbers: dict[str, int] = field(default_factory=dict)
    """By device: what a later process may begin with; exact if ``clean``."""
    clean: bool = False
    save_boot: bool = False
    notes: dict[str, int | str] = field(default_factory=dict)
    thin: tuple[int, int, int, int] | None = None
    """nth, after, upto, most: as ``Store.thin``."""
    empty: bool = False
    """Nothing will be left: the file may shrink."""
    fetch: tuple[int, int, int] | None = None
    """after, upto, most: as ``Store.fetch``."""
    count: tuple[int, int, int] | None = None
    """after, upto, most: as ``Store.count``."""
    closing: bool = False

    @property
    def writes(self) -> bool:
        return bool(self.insert or self.delete or self.numbers or self.save_boot or self.notes or self.thin)


@dataclass(slots=True)
class Answer:
    """What became of a job. trouble: why it was not written; broken: why it was not read, or not opened."""

    job: Job
    opened: Contents | None = None
    """It was opened, or a damaged file was replaced: begin with this."""
    trouble: str | None = None
    broken: str | None = None
    closed: bool = False
    """The file is not open any more, or not yet."""
    busy: OutboxBusy | None = None
    thinned: tuple[dict[str, int], int, int] | None = None
    loaded: list[Reading] | None = None
    counted: tuple[int, int, int] | None = None


class Writer:
    """The thread. ``hand`` gives it a job; ``answer`` is called on it with what became of each."""

    def __init__(self, path: Path, answer: Callable[[Answer], object]) -> None:
        self._path = path
        self._answer = answer
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = Lock(path)
        self._store: Store | None = None
        self._started = False

    def hand(self, job: Job) -> None:
        """Do this next. From the loop's thread."""
        if not self._started:
            self._started = True
            start_thread("outbox", self._run)
        self._jobs.put(job)

    def end(self) -> None:
        """End the thread, once it has done what it was given. The kernel lets go of the lock at the process's end."""
        if self._started:
            self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._answer(self._do(job))
        self._close()

    def _do(self, job: Job) -> Answer:
        answer = Answer(job)
        try:
            self._work(job, answer)
        except OutboxBusy as error:
            answer.busy = error
        except Exception as error:  # noqa: BLE001  (a worker's job: its failure is told, and the thread goes on)
            answer.trouble = answer.broken = error_text(error, self._path)
        answer.closed = self._store is None
        return answer

    def _work(self, job: Job, answer: Answer) -> None:
        if self._store is None:
            self._open(job, answer)
            return
        store = self._store
        if job.writes:
            try:
                self._write(store, job, answer)
            except sqlite3.Error as error:
                answer.trouble = error_text(error, self._path)
                if disk_full(error):
                    with suppress(sqlite3.Error):
                        store.checkpoint()  # room for the next attempt, where there is any
                if damaged(error):
                    self._replace(store, job, answer, error)
                    return
        try:
            if job.fetch:
                answer.loaded = store.fetch(*job.fetch)
            if job.count:
                answer.counted = store.count(*job.count)
        except sqlite3.Error as error:
            answer.broken = error_text(error, self._path)
            if damaged(error):
                self._replace(store, job, answer, error)
                return
        if job.closing:
            self._close()
        elif job.empty and answer.trouble is None and store.free_bytes > _ROOMY:
            try:
                store.give_back()
            except sqlite3.Error:
                return  # a full disk has no room for it; the next time will do

    def _open(self, job: Job, answer: Answer) -> None:
        if not job.opening:
            answer.trouble = answer.broken = "the outbox's file is not open"
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._lock.take()
        try:
            store, answer.opened = open_store(self._path, job.boot, job.wall_ns)
            self._store = store
        finally:
            if self._store is None:
                self._lock.release()

    def _replace(self, store: Store, job: Job, answer: Answer, error: sqlite3.Error) -> None:
        self._store = None
        try:
            self._store, answer.opened = replace(store, job.boot, job.wall_ns, error)
        finally:
            if self._store is None:
                self._lock.release()

    def _write(self, store: Store, job: Job, answer: Answer) -> None:
        store.begin()
        try:
            if job.insert:
                store.insert(job.insert)
            if job.delete:
                store.delete(job.delete)
            for device, following in job.numbers.items():
                store.number(device, following, clean=job.clean)
            if job.save_boot:
                store.save(job.boot)
            for key, value in job.notes.items():
                store.note(key, value)
            if job.thin:
                answer.thinned = store.thin(*job.thin)
            store.commit()
        except sqlite3.Error:
            answer.thinned = None
            store.rollback()
            raise

    def _close(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()
        self._lock.release()
