"""The outbox's file as a file: who has it, what is done with a damaged one, what can be saved of it."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from agent.clock import rfc3339
from agent.errors import OutboxBusy, OutboxError
from agent.outbox_store import Boot, Contents, Row, Store, damaged, sync_directory

_SUFFIXES = ("", "-wal", "-shm")
_SOME = 500
"""Rows of a damaged file that are read at once."""
_STRIDE = 1 << 20
"""Rows that are passed over at most in one jump across what cannot be read."""
_JUMPS = 20_000
"""Attempts at a damaged file: it may be damaged in so many places that it is not worth the time."""


class Lock:
    """``<file>.lock``: one agent a file. The kernel lets go of it when the process ends, however it ends (flock(2))."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f"{path.name}.lock")
        self._descriptor = -1

    def take(self) -> None:
        """Raises OutboxBusy with the pid of who has it, or OSError."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise OutboxBusy(self.path.with_name(self.path.name.removesuffix(".lock")), text) from None
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        except OSError:
            # A full or read-only disk: the lock itself holds, only its owner's number is missing.
            return

    def release(self) -> None:
        """Idempotent. The file stays: removed, it could be locked twice under one name."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def open_store(path: Path, boot: Boot, wall_ns: int) -> tuple[Store, Contents]:
    """Open the outbox; a damaged one is set aside first, and what can be read of it goes into a new one.

    Raises OutboxError where the file is not ours, sqlite3.Error or OSError where the disk refuses.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Made here, so that not everyone may read what the devices say; SQLite gives its other files the same mode.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640))
    store = Store(path)
    try:
        return store, store.open(boot)
    except sqlite3.DatabaseError as error:
        if not damaged(error):
            raise
        return replace(store, boot, wall_ns, error)


def replace(store: Store, boot: Boot, wall_ns: int, error: sqlite3.Error) -> tuple[Store, Contents]:
    """Set the damaged file of a store aside under a dated name, and save what can be read of it in a new file."""
    store.close()
    path = store.path
    aside = set_aside(path, wall_ns)
    fresh = Store(path)
    contents = fresh.open(boot)
    saved = salvage(aside, fresh)
    fresh.close()
    # Opened once more, as the next process would: numbers, boots and rows are now those that were saved.
    contents = fresh.open(boot)
    whole = "" if saved.numbers else ", but not the devices' numbers"
    contents.salvaged = (
        f"{path} was damaged ({error}); it is kept as {aside.name}; {saved.readings} readings saved{whole}"
    )
    contents.count = contents.size = None
    return fresh, contents


def set_aside(path: Path, wall_ns: int) -> Path:
    """Rename a damaged outbox, with what belongs to it, to a dated name that was not there. The new path."""
    stamp = rfc3339(wall_ns)[:19].replace("-", "").replace(":", "")
    names = (f"{path.name}.damaged-{stamp}Z{tail}" for tail in ("", *(f".{number}" for number in range(1, 1000))))
    aside = next(free for name in names if not (free := path.with_name(name)).exists())
    for suffix in _SUFFIXES:
        part = path.with_name(path.name + suffix)
        if part.exists():
            os.rename(part, aside.with_name(aside.name + suffix))
    sync_directory(path.parent)
    return aside


class Saved:
    """What came out of a damaged file."""

    def __init__(self) -> None:
        self.readings = 0
        self.numbers = False


def salvage(damaged_file: Path, store: Store) -> Saved:
    """Copy what can be read of a damaged outbox into an open, empty one."""
    saved = Saved()
    try:
        old = sqlite3.connect(f"{damaged_file.as_uri()}?mode=rw", uri=True, isolation_level=None)
    except sqlite3.Error:
        return saved
    try:
        saved.numbers = store.adopt_names(_table(old, "device"), _table(old, "boot"), _table(old, "meta"))
        if saved.numbers:
            for rows in _readable(old):
                store.begin()
                saved.readings += store.adopt(rows)
                store.commit()
    finally:
        old.close()
    return saved


def _table(old: sqlite3.Connection, name: str) -> list[Row]:
    """All of a small table, or as much as can be read before the damage."""
    rows: list[Row] = []
    try:
        for row in old.execute(f"SELECT * FROM {name}"):
            rows.append(row)  # noqa: PERF402  (those before an error count)
    except sqlite3.Error:
        return rows
    return rows


def _readable(old: sqlite3.Connection) -> Iterator[list[Row]]:
    """All readings that can be read. A search by id passes no page in between: jumps get across a damaged one."""
    after = lost = -1
    jump = 0
    for _ in range(_JUMPS):
        rows, whole = _some(old, "id > ? ORDER BY id LIMIT ?", after, _SOME)
        if rows and jump:  # across: what the jump has passed over is read backwards, up to the damage
            yield _some(old, "id > ? AND id <= ? ORDER BY id DESC", lost, after)[0]
        if rows:
            yield rows
            after, jump = _row(rows[-1]), 0
        if whole and len(rows) < _SOME:
            return
        if not whole:
            lost = after if not jump else lost
            jump = min(_STRIDE, jump * 2 or 1)
            after += jump


def _some(old: sqlite3.Connection, where: str, *values: int) -> tuple[list[Row], bool]:
    """Readings up to the first that cannot be read, and whether there was none such."""
    rows: list[Row] = []
    try:
        for row in old.execute(f"SELECT * FROM reading WHERE {where}", values):
            rows.append(row)  # noqa: PERF402  (those before an error count)
    except sqlite3.Error:
        return rows, False
    return rows, True


def _row(row: Row) -> int:
    assert isinstance(row[0], int)
    return row[0]


def error_text(error: BaseException, path: Path) -> str:
    """What is wrong with the disk, in one line for a person."""
    if isinstance(error, OutboxError):
        return str(error)
    if isinstance(error, PermissionError):
        return f"{error.filename or path}: no permission; give the agent's user write access to {path.parent}"
    full = isinstance(error, OSError) and error.errno == errno.ENOSPC
    if isinstance(error, OSError) and not full:
        misplaced = isinstance(error, FileNotFoundError | NotADirectoryError | FileExistsError)
        remedy = "is outbox.path right?" if misplaced else "look at the kernel's log (dmesg)"
        return f"{error.filename or path}: {error.strerror or error}; {remedy}"
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if full or code == sqlite3.SQLITE_FULL:
        return f"the disk of {path} is full; make room"
    if code == sqlite3.SQLITE_READONLY:
        return f"{path} cannot be written to; is the file system mounted read-only?"
    if code == sqlite3.SQLITE_CANTOPEN:
        return f"{path} cannot be opened; check that {path.parent} is a directory the agent's user may write to"
    if code == sqlite3.SQLITE_IOERR:
        return f"the disk of {path} fails ({error}); look at the kernel's log (dmesg)"
    return f"{path}: {error}"
