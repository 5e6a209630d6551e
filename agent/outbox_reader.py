"""Looking into an outbox's file without touching it, also beside the agent that has it.

To open a file in WAL mode SQLite needs the ``-shm`` beside it, and makes one where there is none: a trace that we do
not want, or may not leave. So: a file with a ``-wal`` has, or had, an agent, and is opened read-only; one without is at
rest, and opened as immutable until a ``-wal`` appears; and where a crash has left a ``-wal`` in a directory that we may
not write to, both are copied elsewhere first.
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from agent.clock import Clock
from agent.errors import OutboxError
from agent.model import Reading
from agent.outbox_store import APPLICATION_ID, VERSION, Boot, damaged

BATCH = 1000
"""Readings looked at in one query: short, so that an agent's checkpoint never waits for us."""

_CANNOT = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}

_SUMS = """
SELECT device, boot, COUNT(*), SUM(LENGTH(CAST(body AS BLOB))), MIN(mono), MAX(mono), MIN(seq), MAX(seq)
FROM reading GROUP BY device, boot
"""


class NoFile(OutboxError):  # noqa: N818  (its reader is told what is not there)
    """There is no such file, or it may not be read. Caught by the command line: exit status 66 (EX_NOINPUT)."""


class NotAnOutbox(OutboxError):  # noqa: N818
    """Not an outbox, one that is damaged, or one of a newer version. Caught by the command line: 65 (EX_DATAERR)."""


@dataclass(slots=True)
class Sums:
    """What waits of one device. oldest_ns, newest_ns: wall time, or None where nothing waits."""

    name: str
    next_seq: int
    exact: bool
    """Whether next_seq is the next number, and not the end of a reserved range."""
    readings: int = 0
    size: int = 0
    """Bytes of the readings' fields."""
    oldest_ns: int | None = None
    newest_ns: int | None = None
    first_seq: int | None = None
    last_seq: int | None = None


class Reader:
    """An outbox, open for reading. clock: this board's, which settles what was taken in the present boot.

    Every method may raise NotAnOutbox, where the file turns out to be damaged, or sqlite3.Error.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self._clock = clock
        self._db: sqlite3.Connection | None = None
        self._immutable = False
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self._names: dict[int, str] = {}
        self._boots: dict[int, Boot] = {}
        self._present: int | None = None

    def open(self) -> None:
        """Raises NoFile or NotAnOutbox."""
        try:
            with self.path.open("rb") as file:
                head = file.read(16)
        except FileNotFoundError:
            raise NoFile(f"{self.path}: no such file") from None
        except OSError as error:
            remedy = "; run this as root or as the agent's user" if isinstance(error, PermissionError) else ""
            raise NoFile(f"{self.path} cannot be read ({error.strerror}){remedy}") from None
        if head != b"SQLite format 3\0":  # https://www.sqlite.org/fileformat.html#magic_header_string
            raise NotAnOutbox(f"{self.path} is not an outbox: it is no database")
        try:
            self._connect()
            self._check()
            self._look()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Idempotent."""
        if self._db is not None:
            self._db.close()
            self._db = None
        if self._copy is not None:
            self._copy.cleanup()
            self._copy = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what is in it ----------------------------------------------------------------------------------------------

    def meta(self) -> dict[str, Any]:
        """What was noted: "agent", "saved_wall_ns" and more."""
        return dict(self._rows("SELECT key, value FROM meta"))

    def boots(self) -> list[Boot]:
        """The boots whose readings wait, and the last one."""
        return list(self._boots.values())

    def sums(self) -> list[Sums]:
        """What waits, by device, in the order of their names. Reads all of it: a second for each million."""
        found = {
            number: Sums(name, following, bool(clean))
            for number, name, following, clean in self._rows("SELECT id, name, next, clean FROM device ORDER BY name")
        }
        for number, boot, count, size, oldest, newest, first, last in self._rows(_SUMS):
            sums = found.get(number) or found.setdefault(number, Sums(f"device {number}, unknown", 0, False))
            offset = self._boots[boot].offset_ns if boot in self._boots else 0
            sums.readings += count
            sums.size += size
            sums.oldest_ns = _least(sums.oldest_ns, oldest + offset)
            sums.newest_ns = _most(sums.newest_ns, newest + offset)
            sums.first_seq = _least(sums.first_seq, first)
            sums.last_seq = _most(sums.last_seq, last)
        return list(found.values())

    def count(self, device: str | None = None) -> int:
        """How many readings wait."""
        where, values = self._of(device)
        return int(self._rows(f"SELECT COUNT(*) FROM reading WHERE {where}", *values)[0][0])

    def readings(self, device: str | None = None, *, newest: int | None = None) -> Iterator[Reading]:
        """All that waits, or of one device, in the order in which it will be sent; or the newest so many.

        Those of the present boot carry their monotonic stamp, those of earlier boots their wall time.
        """
        where, values = self._of(device)
        after = -1
        if newest is not None:
            rows = self._rows(f"SELECT id FROM reading WHERE {where} ORDER BY id DESC LIMIT ?", *values, newest)
            after = rows[-1][0] - 1 if rows else -1
        query = (
            "SELECT id, device, boot, seq, mono, resumed, body FROM reading "
            f"WHERE {where} AND id > ? ORDER BY id LIMIT {BATCH}"
        )
        while rows := self._rows(query, *values, after):
            after = rows[-1][0]
            for row in rows:
                yield self._reading(*row)

    def names(self) -> list[str]:
        """The devices that it knows."""
        return sorted(self._names.values())

    def _of(self, device: str | None) -> tuple[str, tuple[int, ...]]:
        if device is None:
            return "1", ()
        return "device = ?", tuple(number for number, name in self._names.items() if name == device)

    def _reading(self, row: int, device: int, boot: int, seq: int, mono: int, resumed: int, body: str) -> Reading:
        then = self._boots.get(boot)
        name = self._names.get(device)
        if then is None or name is None or type(mono) is not int or type(seq) is not int or type(body) is not str:
            raise NotAnOutbox(f"{self.path} is damaged: reading {row} makes no sense; `outbox verify` says more")
        if boot == self._present:
            return Reading(name, seq, mono, body.encode(), bool(resumed), row=row)
        return Reading(name, seq, 0, body.encode(), bool(resumed), mono + then.offset_ns, not then.trusted, row)

    # -- whether it is whole ----------------------------------------------------------------------------------------

    def integrity(self, *, quick: bool) -> list[str]:
        """What SQLite finds wrong with the file, in 20 lines at most. quick: without comparing indexes with tables."""
        try:
            rows = self._rows(f"PRAGMA {'quick_check' if quick else 'integrity_check'}(20)")
        except NotAnOutbox as error:
            return [str(error)]
        return [str(row[0]) for row in rows if row[0] != "ok"]

    def contents(self) -> Iterator[str | None]:
        """What is wrong with each reading, or None for one that is good.

        Good is: device and boot are known, the device's numbers ascend and were given, the fields are a JSON object.
        """
        known = dict(self._rows("SELECT id, next FROM device"))
        highest: dict[int, int] = {}
        after = -1
        query = f"SELECT id, device, boot, seq, body FROM reading WHERE id > ? ORDER BY id LIMIT {BATCH}"
        while rows := self._rows(query, after):
            after = rows[-1][0]
            for row, device, boot, seq, body in rows:
                name = self._names.get(device, f"device {device}")
                what = f"reading {row}, {name} #{seq}"
                if type(seq) is not int:
                    yield f"{what}: its number is none"
                    continue
                before = highest.get(device, 0)
                highest[device] = max(before, seq)
                if device not in known:
                    yield f"{what}: its device is not in the file"
                elif boot not in self._boots:
                    yield f"{what}: its boot is not in the file"
                elif seq <= before:
                    yield f"{what}: comes after #{before}"
                elif seq >= known[device]:
                    yield f"{what}: the next number to be given is {known[device]}"
                elif not _is_object(body):
                    yield f"{what}: its fields are no JSON object"
                else:
                    yield None

    # ---------------------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        wal = self.path.with_name(f"{self.path.name}-wal")
        self._immutable = not wal.exists()
        try:
            self._db = self._opened(self.path, "immutable=1" if self._immutable else "mode=ro")
        except sqlite3.OperationalError as error:
            if _code(error) not in _CANNOT or self._immutable:
                raise
            # A crash has left it, and we may not make the -shm that it takes to read it.
            self._copy = tempfile.TemporaryDirectory(prefix="outstation-outbox-")
            for file in (self.path, wal):
                shutil.copyfile(file, Path(self._copy.name) / file.name)
            self._db = self._opened(Path(self._copy.name) / self.path.name, "mode=rw")

    def _opened(self, path: Path, how: str) -> sqlite3.Connection:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, isolation_level=None, timeout=5.0)
        try:
            db.execute("PRAGMA cache_size = -1000")
            db.execute("SELECT COUNT(*) FROM sqlite_master")  # here it is that it opens the files
        except sqlite3.DatabaseError as error:
            db.close()
            if damaged(error):
                raise NotAnOutbox(_damage(self.path, error)) from None
            raise
        return db

    def _rows(self, sql: str, *values: object) -> list[Any]:
        """All rows of a query; once more if an agent began to write into what had seemed to be at rest."""
        assert self._db is not None, "it is not open"
        while True:
            try:
                rows = self._db.execute(sql, values).fetchall()
            except sqlite3.DatabaseError as error:
                if damaged(error) and not self._stirs():
                    raise NotAnOutbox(_damage(self.path, error)) from None
                if not damaged(error):
                    raise
                rows = []
            if not self._stirs():
                return rows
            self._db.close()
            self._connect()

    def _stirs(self) -> bool:
        return self._immutable and self.path.with_name(f"{self.path.name}-wal").exists()

    def _check(self) -> None:
        (application,) = self._rows("PRAGMA application_id")[0]
        (version,) = self._rows("PRAGMA user_version")[0]
        if application != APPLICATION_ID:
            raise NotAnOutbox(f"{self.path} is not an outbox: it is a database of some other program")
        if version != VERSION:
            newer = "a newer" if version > VERSION else "an older"
            remedy = "use that version's command" if version > VERSION else "start the agent once, which converts it"
            raise NotAnOutbox(
                f"{self.path} is of {newer} version (schema {version}, this one knows {VERSION}); {remedy}"
            )

    def _look(self) -> None:
        clock = self._clock
        self._names = dict(self._rows("SELECT id, name FROM device"))
        saved = self.meta().get("saved_wall_ns")
        if isinstance(saved, int):
            clock.remember(saved)
        for number, uuid, offset_ns, trusted in self._rows("SELECT id, uuid, offset_ns, trusted FROM boot"):
            self._boots[number] = Boot(uuid, offset_ns, bool(trusted))
            if uuid == clock.boot_id:
                self._present = number
                if trusted:
                    clock.adopt(offset_ns, True)
                self._boots[number] = Boot(uuid, clock.offset_ns, clock.trusted())


def holder(path: Path) -> str | None:
    """Pid of the process that has the outbox, by the kernel's list of locks: to try it could turn an agent away."""
    lock = path.with_name(f"{path.name}.lock")
    try:
        text = lock.read_text("ascii", "replace").strip()
        inode = lock.stat().st_ino
        locks = Path("/proc/locks").read_text(
            "ascii", "replace"
        )  # proc_locks(5): "... FLOCK ... pid major:minor:inode"
    except OSError:
        return None
    found = re.search(rf"FLOCK\s+ADVISORY\s+WRITE\s+(-?\d+)\s+\S+:{inode}\s", locks)
    if found is None:
        return None
    return found[1] if int(found[1]) > 0 else text  # 0 or less: a process of another container


def _least(known: int | None, value: int) -> int:
    return value if known is None else min(known, value)


def _most(known: int | None, value: int) -> int:
    return value if known is None else max(known, value)


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF  # the primary code of an extended one


def _damage(path: Path, error: sqlite3.Error) -> str:
    return f"{path} is damaged ({error}); start the agent: it sets it aside and saves what can be read of it"


def _is_object(body: object) -> bool:
    try:
        return isinstance(body, str) and isinstance(json.loads(body), dict)
    except (ValueError, RecursionError):
        return False
