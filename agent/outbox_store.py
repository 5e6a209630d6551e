"""The outbox's file: SQLite in WAL mode, and all the SQL there is. Synchronous; one thread at a time.

Rows go in, out and away in one statement a group, as JSON: Python's module lets go of the interpreter's lock around
each step, and to get it back costs up to 5 ms while the loop is busy, so that a step for each row would take seconds.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from agent.errors import OutboxError
from agent.model import Reading

APPLICATION_ID = 0x4F757473
"""``PRAGMA application_id``, "Outs": what file(1) and we know the file by."""
CHECKPOINT_PAGES = 100
"""Of 4 KiB, after which the journal is written back: what is deleted makes room in the file for what comes, so that a
small disk, or one that is nearly full, is not held by the journal of readings that are long delivered."""
VERSION = 1
"""``PRAGMA user_version``: of the schema below."""

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE device (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, next INTEGER NOT NULL, clean INTEGER NOT NULL);
CREATE TABLE boot (id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, offset_ns INTEGER NOT NULL,
                   trusted INTEGER NOT NULL);
CREATE TABLE reading (id INTEGER PRIMARY KEY, device INTEGER NOT NULL, boot INTEGER NOT NULL, seq INTEGER NOT NULL,
                      mono INTEGER NOT NULL, resumed INTEGER NOT NULL, body TEXT NOT NULL);
"""

_MIGRATIONS: dict[int, str] = {}
"""From version n to n + 1: SQL, run in one transaction with the change of ``user_version``."""

_INSERT = """
INSERT OR IGNORE INTO reading (id, device, boot, seq, mono, resumed, body)
SELECT value ->> 0, value ->> 1, ?, value ->> 2, value ->> 3, value ->> 4, value ->> 5 FROM json_each(?)
"""
_DELETE = "DELETE FROM reading WHERE id IN (SELECT value FROM json_each(?))"
_FETCH = """
SELECT json_group_array(json_array(id, device, boot, seq, mono, resumed, body)) FROM
(SELECT * FROM reading WHERE id > ? AND id <= ? ORDER BY id LIMIT ?)
"""
_COUNT = """
SELECT COUNT(*), COALESCE(SUM(LENGTH(body)), 0), MAX(id) FROM
(SELECT id, body FROM reading WHERE id > ? AND id <= ? ORDER BY id LIMIT ?)
"""
_SLICE = "(SELECT id, device, seq, body FROM reading WHERE id > :after AND id <= :upto ORDER BY id LIMIT :most)"

Row = tuple[object, ...]

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


@dataclass(frozen=True, slots=True)
class Boot:
    """Which boot a monotonic stamp belongs to, and what it is in wall time."""

    uuid: str
    """The kernel's (random(4)), /proc/sys/kernel/random/boot_id."""
    offset_ns: int
    """Wall time minus CLOCK_MONOTONIC."""
    trusted: bool
    """Whether the wall clock was believed."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """What a device's next reading is called. resumed: after an unclean end, so that numbers before it may be void."""

    following: int
    resumed: bool


@dataclass(slots=True)
class Contents:
    """What a file holds when it is opened. first, last: rows, 0 where there are none; count, size: None if unknown."""

    numbers: dict[str, Numbers] = field(default_factory=dict)
    first: int = 0
    last: int = 0
    count: int | None = 0
    size: int | None = 0
    saved_wall_ns: int = 0
    boot: Boot | None = None
    """What an earlier process of this boot knew of the clock."""
    agent: str | None = None
    salvaged: str | None = None
    """One line on what was damaged and has been set aside."""


def damaged(error: BaseException) -> bool:
    """Whether the file itself is at fault: not the disk, nor who asks."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary code of an extended one
    return isinstance(error, sqlite3.DatabaseError) and code in _DAMAGED


def disk_full(error: sqlite3.Error) -> bool:
    """Whether there was no room."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL


def _fits(row: Row, types: tuple[type, ...]) -> bool:
    return len(row) == len(types) and all(type(value) is kind for value, kind in zip(row, types, strict=True))


def _is_object(body: str) -> bool:
    try:
        return isinstance(orjson.loads(body), dict)
    except ValueError:
        return False


class Store:
    """An open outbox. Every method may raise sqlite3.Error or OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db: sqlite3.Connection | None = None
        self._devices: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._boots: dict[int, Boot] = {}
        self._boot = 0

    # --- opening

    def open(self, boot: Boot) -> Contents:
        """Open the file, or make it. Raises OutboxError where it is not an outbox of ours."""
        db = self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=5.0)
        try:
            return self._open(db, boot)
        except BaseException:
            self.close()
            raise

    def _open(self, db: sqlite3.Connection, boot: Boot) -> Contents:
        version = self._pragma("user_version")
        if version == 0 and not self._value("SELECT COUNT(*) FROM sqlite_master"):
            self._pragma("journal_mode = WAL")
            db.executescript(
                f"BEGIN; {_SCHEMA} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; COMMIT;"
            )
            version = VERSION
        elif self._pragma("application_id") != APPLICATION_ID:
            raise OutboxError(f"{self.path} is a database of some other program; set outbox.path to another file")
        elif version > VERSION:
            raise OutboxError(
                f"{self.path} is of a newer version of the agent (schema {version}, this one knows {VERSION}); "
                "install that version again, or set outbox.path to another file"
            )
        self._pragma("journal_mode = WAL")
        self._pragma("synchronous = FULL")  # each commit survives a power cut
        self._pragma("cache_size = -1000")  # KiB; rows are written and read in order
        self._pragma(f"wal_autocheckpoint = {CHECKPOINT_PAGES}")
        with suppress(sqlite3.OperationalError):  # there is no room for it; the journal is good as it is
            self.checkpoint()
        for step in range(version, VERSION):
            db.executescript(f"BEGIN; {_MIGRATIONS[step]} PRAGMA user_version = {step + 1}; COMMIT;")
        return self._contents(db, boot)

    def _contents(self, db: sqlite3.Connection, boot: Boot) -> Contents:
        found = Contents()
        found.numbers = self._read_devices(db)
        for number, uuid, offset_ns, trusted in db.execute("SELECT id, uuid, offset_ns, trusted FROM boot"):
            self._boots[number] = Boot(uuid, offset_ns, bool(trusted))
            if uuid == boot.uuid:
                self._boot = number
                found.boot = self._boots[number]
        if not self._boot:
            values = (boot.uuid, boot.offset_ns, boot.trusted)
            self._boot = int(
                db.execute("INSERT INTO boot (uuid, offset_ns, trusted) VALUES (?, ?, ?)", values).lastrowid or 0
            )
            self._boots[self._boot] = boot
        # One by one: SQLite finds either end at once, but reads all there is to find both in one query.
        found.first = self._value("SELECT MIN(id) FROM reading") or 0
        found.last = self._value("SELECT MAX(id) FROM reading") or 0
        meta = dict(db.execute("SELECT key, value FROM meta"))
        found.agent = meta.get("agent")
        found.saved_wall_ns = int(meta.get("saved_wall_ns", 0))
        if found.last:
            # Known after a clean stop; else they are counted bit by bit, for that reads the whole file.
            found.count, found.size = meta.get("count"), meta.get("size")
        db.execute("DELETE FROM meta WHERE key IN ('count', 'size')")
        if found.last == 0:
            self._drop_old_boots(db)
        return found

    def _read_devices(self, db: sqlite3.Connection) -> dict[str, Numbers]:
        self._devices.clear()
        self._names.clear()
        numbers = {}
        for number, name, following, clean in db.execute("SELECT id, name, next, clean FROM device"):
            self._devices[name] = number
            self._names[number] = name
            numbers[name] = Numbers(following, not clean)
        return numbers

    def _drop_old_boots(self, db: sqlite3.Connection) -> None:
        """No reading is left: boots but the present one have nothing to say."""
        db.execute("DELETE FROM boot WHERE id <> ?", (self._boot,))
        self._boots = {self._boot: self._boots[self._boot]}

    def close(self) -> None:
        """Idempotent. The last connection's close also writes the WAL back and removes it."""
        if self._db is not None:
            self._db.close()
            self._db = None

    @property
    def _open_db(self) -> sqlite3.Connection:
        if self._db is None:
            raise OutboxError("the outbox's file is not open")
        return self._db

    def _pragma(self, text: str) -> Any:
        return self._value(f"PRAGMA {text}")

    def _value(self, sql: str) -> Any:
        row = self._open_db.execute(sql).fetchone()
        return None if row is None else row[0]

    # --- what one commit does; between begin() and commit()

    def begin(self) -> None:
        self._open_db.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self._open_db.execute("COMMIT")

    def rollback(self) -> None:
        """Idempotent; some errors have rolled back already."""
        if self._db is None:
            return
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        self._read_devices(self._db)  # names that were new are not there any more, nor are their numbers

    def insert(self, readings: Iterable[Reading]) -> None:
        """Keep readings; those with a row that is there already are passed over."""
        rows = [[r.row, self._device(r.device), r.seq, r.mono_ns, r.resumed, r.body.decode()] for r in readings]
        self._open_db.execute(_INSERT, (self._boot, orjson.dumps(rows).decode()))

    def _device(self, name: str) -> int:
        number = self._devices.get(name)
        if number is None:
            self.number(name, 1, clean=False)
            number = self._devices[name]
        return number

    def delete(self, rows: Sequence[int]) -> None:
        """Forget readings."""
        self._open_db.execute(_DELETE, (orjson.dumps(rows).decode(),))

    def number(self, device: str, following: int, *, clean: bool) -> None:
        """What a new process may call the device's next reading. clean: exactly that, not the end of a range."""
        (number,) = self._open_db.execute(
            "INSERT INTO device (name, next, clean) VALUES (?, ?, ?) "
            "ON CONFLICT (name) DO UPDATE SET next = excluded.next, clean = excluded.clean RETURNING id",
            (device, following, clean),
        ).fetchone()
        self._devices[device] = number
        self._names[number] = device

    def save(self, boot: Boot) -> None:
        """What the present boot's clock is."""
        self._open_db.execute(
            "UPDATE boot SET offset_ns = ?, trusted = ? WHERE id = ?", (boot.offset_ns, boot.trusted, self._boot)
        )

    def note(self, key: str, value: int | str) -> None:
        """Remember a value: ``agent``, ``saved_wall_ns``, ``count``, ``size``."""
        self._open_db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))

    def thin(self, nth: int, after: int, upto: int, most: int) -> tuple[dict[str, int], int, int]:
        """Of ``most`` readings after a row, forget those that are no ``nth`` of their device.

        How many by device, the size of their bodies, and the last row looked at (``upto`` at the end).
        """
        db = self._open_db
        names = {"after": after, "upto": upto, "most": most, "nth": nth}
        last = db.execute(f"SELECT MAX(id) FROM {_SLICE}", names).fetchone()[0]
        if last is None:
            return {}, 0, upto
        dropped: dict[str, int] = {}
        size = 0
        for device, count, octets in db.execute(
            f"SELECT device, COUNT(*), SUM(LENGTH(body)) FROM {_SLICE} WHERE seq % :nth GROUP BY device", names
        ):
            dropped[self._names[device]] = count
            size += octets
        db.execute("DELETE FROM reading WHERE id > ? AND id <= ? AND seq % ?", (after, last, nth))
        return dropped, size, last

    # --- reading

    def fetch(self, after: int, upto: int, most: int) -> list[Reading]:
        """The next ``most`` readings after a row, in order, with the wall time of those of earlier boots settled."""
        text = self._open_db.execute(_FETCH, (after, upto, most)).fetchone()[0]
        return [self._reading(*row) for row in orjson.loads(text)]

    def _reading(self, row: int, device: int, boot: int, seq: int, mono_ns: int, resumed: int, body: str) -> Reading:
        name = self._names[device]
        octets = body.encode()
        if boot == self._boot:
            return Reading(name, seq, mono_ns, octets, bool(resumed), None, False, row)
        then = self._boots[boot]
        return Reading(name, seq, 0, octets, bool(resumed), mono_ns + then.offset_ns, not then.trusted, row)

    def count(self, after: int, upto: int, most: int) -> tuple[int, int, int]:
        """How many of ``most`` readings after a row there are, the size of their bodies, the last row (``upto``)."""
        count, size, last = self._open_db.execute(_COUNT, (after, upto, most)).fetchone()
        return count, size, last if count == most else upto

    # --- what was saved from a damaged file; the values may be anything

    def adopt_names(self, devices: Sequence[Row], boots: Sequence[Row], meta: Sequence[Row]) -> bool:
        """Take over numbers and boots into a new file, which has to be opened anew then. Whether there were any."""
        db = self._open_db
        self.begin()
        for row in devices:
            if _fits(row, (int, str, int, int)):
                db.execute("INSERT OR IGNORE INTO device (id, name, next, clean) VALUES (?, ?, ?, ?)", row)
                self._names[int(str(row[0]))] = str(row[1])
        good = [row for row in boots if _fits(row, (int, str, int, int))]
        if good:
            db.execute("DELETE FROM boot")
            db.executemany("INSERT OR IGNORE INTO boot (id, uuid, offset_ns, trusted) VALUES (?, ?, ?, ?)", good)
            self._boots = {int(str(row[0])): Boot(str(row[1]), int(str(row[2])), bool(row[3])) for row in good}
        for row in meta:
            if _fits(row, (str, int)) and row[0] == "saved_wall_ns":
                db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", row)
        self.commit()
        return bool(self._names)

    def adopt(self, readings: Iterable[Row]) -> int:
        """Take over readings as far as they make sense. How many."""
        good = [
            row
            for row in readings
            if _fits(row, (int, int, int, int, int, int, str))
            and row[1] in self._names
            and row[2] in self._boots
            and _is_object(str(row[6]))
        ]
        self._open_db.executemany("INSERT OR IGNORE INTO reading VALUES (?, ?, ?, ?, ?, ?, ?)", good)
        return len(good)

    # --- housekeeping

    def checkpoint(self) -> None:
        """Write the journal back into the file, and make it empty (sqlite.org/wal.html)."""
        self._pragma("wal_checkpoint(TRUNCATE)")

    def give_back(self) -> None:
        """Nothing is left to keep: make the file as small as it was new. Cheap then, for there is nothing to copy."""
        self._drop_old_boots(self._open_db)
        self._open_db.execute("VACUUM")
        self.checkpoint()

    @property
    def free_bytes(self) -> int:
        """Bytes of the file that hold nothing."""
        return int(self._pragma("freelist_count")) * int(self._pragma("page_size"))


def sync_directory(path: Path) -> None:
    """Have the names in a directory on disk (fsync(2))."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
