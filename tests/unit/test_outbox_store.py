"""The outbox's file: what goes in comes out, what is damaged is set aside, and nobody else's database is touched."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from agent.errors import OutboxBusy, OutboxError
from agent.model import Reading
from agent.outbox_file import Lock, error_text, open_store, replace
from agent.outbox_store import APPLICATION_ID, VERSION, Boot, Numbers, Store

BOOT = Boot("boot-a", 1_700_000_000_000_000_000, trusted=True)
LATER = Boot("boot-b", 1_800_000_000_000_000_000, trusted=True)
WALL = 1_790_000_000_000_000_000
ALL = 1 << 62


def readings(first: int, last: int, device: str = "d", padding: int = 0) -> list[Reading]:
    body = b'{"x":"%b"}' % (b"x" * padding)
    return [Reading(device, seq, 1000 * seq, body, row=seq) for seq in range(first, last + 1)]


def write(store: Store, *, insert: list[Reading] | None = None, delete: list[int] | None = None) -> None:
    store.begin()
    store.insert(insert or [])
    store.delete(delete or [])
    store.commit()


def rows(path: Path) -> list[int]:
    store = Store(path)
    store.open(BOOT)
    try:
        return [reading.row for reading in store.fetch(0, ALL, 10**6)]
    finally:
        store.close()


def test_what_is_kept_comes_back_as_it_was_and_in_order(tmp_path: Path) -> None:
    store = Store(tmp_path / "o.db")
    store.open(BOOT)
    kept = [
        Reading("weather", 7, 123, '{"t":21.5,"ü":"\\"quoted\\", [1]"}'.encode(), resumed=True, row=3),
        Reading("meter", 1, 124, b'{"kWh":1e308}', row=4),
        Reading("weather", 8, 125, b"{}", row=9),
    ]
    write(store, insert=list(reversed(kept)))
    assert store.fetch(0, ALL, 10) == kept
    assert store.fetch(3, 4, 10) == kept[1:2]
    assert store.fetch(0, ALL, 2) == kept[:2]
    assert store.count(0, ALL, 10) == (3, sum(len(r.body.decode()) for r in kept), ALL)
    store.close()
    again = Store(tmp_path / "o.db")
    contents = again.open(BOOT)
    assert (contents.first, contents.last, contents.boot) == (3, 9, BOOT)
    assert again.fetch(0, ALL, 10) == kept
    again.close()


def test_what_is_deleted_or_not_committed_is_gone(tmp_path: Path) -> None:
    store = Store(tmp_path / "o.db")
    store.open(BOOT)
    write(store, insert=readings(1, 9))
    write(store, delete=[1, 2, 5, 77])
    store.begin()
    store.insert(readings(10, 12))
    store.rollback()
    store.rollback()
    store.close()
    assert rows(tmp_path / "o.db") == [3, 4, 6, 7, 8, 9]


def test_a_name_that_was_rolled_back_is_no_name_any_more(tmp_path: Path) -> None:
    store = Store(tmp_path / "o.db")
    store.open(BOOT)
    store.begin()
    store.number("a", 1, clean=False)
    store.rollback()
    store.begin()
    store.number("b", 1, clean=False)
    store.insert([Reading("a", 1, 0, b"{}", row=1), Reading("b", 1, 0, b"{}", row=2)])
    store.commit()
    assert [(r.device, r.seq) for r in store.fetch(0, ALL, 9)] == [("a", 1), ("b", 1)]
    store.close()


def test_writing_a_group_twice_does_no_harm(tmp_path: Path) -> None:
    store = Store(tmp_path / "o.db")
    store.open(BOOT)
    write(store, insert=readings(1, 3))
    write(store, insert=readings(1, 4))
    assert [r.row for r in store.fetch(0, ALL, 10)] == [1, 2, 3, 4]
    store.close()


def test_numbers_survive_exactly_or_as_the_end_of_a_range(tmp_path: Path) -> None:
    store = Store(tmp_path / "o.db")
    assert store.open(BOOT).numbers == {}
    store.begin()
    store.number("a", 65_537, clean=False)
    store.number("b", 12, clean=False)
    store.number("b", 13, clean=True)
    store.commit()
    store.close()
    again = Store(tmp_path / "o.db")
    assert again.open(BOOT).numbers == {"a": Numbers(65_537, resumed=True), "b": Numbers(13, resumed=False)}
    again.close()


def test_stamps_of_an_earlier_boot_are_settled_and_those_of_this_one_are_not(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    store = Store(path)
    store.open(Boot("boot-a", 0, trusted=False))
    write(store, insert=readings(1, 1))
    store.begin()
    store.save(Boot("boot-a", 500, trusted=True))
    store.commit()
    store.close()
    never = Store(path)
    never.open(Boot("never-true", 7, trusted=False))
    write(never, insert=readings(2, 2))
    never.close()
    now = Store(path)
    contents = now.open(LATER)
    write(now, insert=readings(3, 3))
    assert contents.boot is None
    assert [(r.mono_ns, r.wall_ns, r.unsynced) for r in now.fetch(0, ALL, 9)] == [
        (0, 1500, False),
        (0, 2007, True),
        (3000, None, False),
    ]
    now.close()


def test_boots_without_readings_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    for number in range(5):
        store = Store(path)
        store.open(Boot(f"boot-{number}", 0, trusted=True))
        store.close()
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT uuid FROM boot").fetchall() == [("boot-4",)]


def test_thinning_keeps_every_nth_of_each_device_and_counts_the_rest(tmp_path: Path) -> None:
    store = Store(tmp_path / "o.db")
    store.open(BOOT)
    mixed = [Reading("ab"[n % 2], n // 2, 0, b"{}", row=n) for n in range(2, 42)]  # a and b: 1 to 20
    write(store, insert=mixed)
    store.begin()
    assert store.thin(4, 0, 31, 20) == ({"a": 8, "b": 8}, 32, 21)  # of 1 to 10 each, 4 and 8 stay
    assert store.thin(4, 21, 31, 20) == ({"a": 4, "b": 4}, 16, 31)  # of 11 to 15, 12
    assert store.thin(4, 31, 31, 20) == ({}, 0, 31)
    store.commit()
    left = [(r.device, r.seq) for r in store.fetch(0, ALL, 99)]
    assert left[:6] == [("a", 4), ("b", 4), ("a", 8), ("b", 8), ("a", 12), ("b", 12)]
    assert left[6:] == [(device, seq) for seq in range(16, 21) for device in "ab"]
    store.close()


def test_a_file_that_was_large_becomes_small_again(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    store = Store(path)
    store.open(BOOT)
    write(store, insert=readings(1, 2000, padding=1000))
    write(store, delete=list(range(1, 2001)))
    assert store.free_bytes > 1_000_000
    store.give_back()
    assert path.stat().st_size < 100_000
    assert path.with_name("o.db-wal").stat().st_size == 0
    write(store, insert=readings(1, 1))
    store.close()
    assert rows(path) == [1]


@pytest.mark.parametrize("statement", ["CREATE TABLE theirs (x)", f"PRAGMA user_version = {VERSION}"])
def test_nobody_elses_database_is_touched(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "theirs.db"
    with sqlite3.connect(path) as db:
        db.execute(statement)
        db.execute("CREATE TABLE more (x)")
    before = path.read_bytes()
    with pytest.raises(OutboxError, match=r"of some other program; set outbox\.path"):
        open_store(path, BOOT, WALL)
    assert path.read_bytes() == before


def test_a_file_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
        db.execute("CREATE TABLE future (x)")
    with pytest.raises(OutboxError, match="newer version of the agent"):
        open_store(path, BOOT, WALL)
    assert os.listdir(tmp_path) == ["o.db"]


def test_an_older_file_is_brought_up_to_date_with_all_that_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "o.db"
    filled(path, 5)
    monkeypatch.setattr("agent.outbox_store.VERSION", VERSION + 2)
    added = "ALTER TABLE meta ADD COLUMN note TEXT; "
    dropped = "ALTER TABLE meta DROP COLUMN note; CREATE TABLE later (x); "
    monkeypatch.setattr("agent.outbox_store._MIGRATIONS", {VERSION: added, VERSION + 1: dropped})
    for _ in range(2):  # the second time there is nothing to do
        store = Store(path)
        contents = store.open(BOOT)
        assert contents.numbers == {"d": Numbers(70_000, resumed=True)}
        assert [reading.row for reading in store.fetch(0, ALL, 9)] == [1, 2, 3, 4, 5]
        assert store._pragma("user_version") == VERSION + 2
        store.close()
    fresh = Store(tmp_path / "fresh.db")
    fresh.open(BOOT)  # a new file is of the newest form at once
    assert fresh._value("SELECT COUNT(*) FROM sqlite_master WHERE name = 'later'") == 0
    fresh.close()


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "o.db"
    filled(path, 5)
    with monkeypatch.context() as newer:
        newer.setattr("agent.outbox_store.VERSION", VERSION + 1)
        newer.setattr("agent.outbox_store._MIGRATIONS", {VERSION: "DROP TABLE reading; DROP TABLE nothing; "})
        with pytest.raises(sqlite3.OperationalError):
            Store(path).open(BOOT)
    assert rows(path) == [1, 2, 3, 4, 5]


def test_one_agent_a_file(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    first, second = Lock(path), Lock(path)
    first.take()
    with pytest.raises(OutboxBusy, match=f"in use by process {os.getpid()}; stop that"):
        second.take()
    first.release()
    second.take()
    second.release()


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    code = f"import os, signal, pathlib, agent.outbox_file as f; f.Lock(pathlib.Path({str(path)!r})).take()"
    held = subprocess.run(
        [sys.executable, "-c", f"{code}; os.kill(os.getpid(), signal.SIGKILL)"], check=False, timeout=30
    )
    assert held.returncode == -9
    lock = Lock(path)
    lock.take()
    assert path.with_name("o.db.lock").read_text() == f"{os.getpid()}\n"
    lock.release()


# --- damage


def filled(path: Path, count: int = 3000) -> None:
    store = Store(path)
    store.open(BOOT)
    store.begin()
    store.number("d", 70_000, clean=False)
    store.commit()
    write(store, insert=readings(1, count, padding=100))
    store.close()


def test_a_file_that_is_no_database_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    path.write_bytes(b"not a database, but longer than a header of one is. " * 100)
    store, contents = open_store(path, BOOT, WALL)
    assert contents.salvaged == (
        f"{path} was damaged (file is not a database); it is kept as o.db.damaged-20260921T141320Z; 0 readings saved, "
        "but not the devices' numbers"
    )
    assert (contents.numbers, contents.last) == ({}, 0)
    write(store, insert=readings(1, 2))
    store.close()
    assert rows(path) == [1, 2]
    assert (tmp_path / "o.db.damaged-20260921T141320Z").read_bytes().startswith(b"not a database")


def test_two_damages_in_one_second_are_both_kept(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    for _ in range(3):
        path.write_bytes(bytes(range(256)) * 40)
        open_store(path, BOOT, WALL)[0].close()
    kept = sorted(name for name in os.listdir(tmp_path) if "damaged" in name)
    stem = "o.db.damaged-20260921T141320Z"
    assert kept == [stem, f"{stem}.1", f"{stem}.2"]


def wreck(path: Path, *places: float) -> None:
    """Overwrite a page of the file at each place, 0.0 being its beginning and 1.0 its end."""
    pages = path.stat().st_size // 4096
    with path.open("r+b") as file:
        for place in places:
            file.seek(4096 * min(pages - 1, int(pages * place)))
            file.write(b"\xa5" * 4096)


@pytest.mark.parametrize("places", [(0.5,), (0.3, 0.6, 0.9), (0.999,)])
def test_what_can_be_read_of_a_damaged_file_is_saved(tmp_path: Path, places: tuple[float, ...]) -> None:
    path = tmp_path / "o.db"
    filled(path)
    wreck(path, *places)
    store, contents = open_store(path, BOOT, WALL)
    if contents.salvaged is None:  # the opening looks at the ends alone
        with pytest.raises(sqlite3.DatabaseError) as failure:
            store.fetch(0, ALL, 10**6)
        store, contents = replace(store, BOOT, WALL, failure.value)
    saved = [reading.row for reading in store.fetch(0, ALL, 10**6)]
    assert contents.salvaged is not None
    assert f"{len(saved)} readings saved" in contents.salvaged
    assert saved == sorted(set(saved))
    assert 3000 - 60 * len(places) <= len(saved) < 3000  # some thirty readings a page
    assert contents.numbers == {"d": Numbers(70_000, resumed=True)}
    assert (contents.first, contents.last) == (saved[0], saved[-1])
    store.close()


def test_nonsense_in_a_damaged_file_is_not_saved(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    filled(path, 10)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE reading SET body = '{\"x\":' WHERE id = 2")
        db.execute("UPDATE reading SET device = 99 WHERE id = 3")
        db.execute("UPDATE reading SET mono = 'noon' WHERE id = 4")
        db.execute("UPDATE reading SET boot = 99 WHERE id = 5")
    damaged = Store(path)
    damaged.open(BOOT)
    store, contents = replace(damaged, BOOT, WALL, sqlite3.DatabaseError("database disk image is malformed"))
    assert [reading.row for reading in store.fetch(0, ALL, 99)] == [1, 6, 7, 8, 9, 10]
    assert "6 readings saved" in (contents.salvaged or "")
    store.close()


def test_a_lost_journal_is_no_damage(tmp_path: Path) -> None:
    """What a power cut may leave: the file as of the last checkpoint, and a journal that is cut short."""
    path = tmp_path / "o.db"
    store = Store(path)
    store.open(BOOT)
    for number in range(1, 30):
        write(store, insert=readings(number, number))
    copy = tmp_path / "cut"
    copy.mkdir()
    wal = path.with_name("o.db-wal").read_bytes()
    whole = path.read_bytes()
    store.close()
    (copy / "o.db").write_bytes(whole)
    known = []
    for size in (len(wal), len(wal) - 100, len(wal) // 2, 10, 0):
        (copy / "o.db-wal").write_bytes(wal[:size])
        opened, contents = open_store(copy / "o.db", BOOT, WALL)
        assert contents.salvaged is None
        known.append(len(opened.fetch(0, ALL, 99)))
        opened.close()
        (copy / "o.db").write_bytes(whole)
        for name in os.listdir(copy):
            if name != "o.db":
                (copy / name).unlink()
    assert known[:2] == [29, 28]
    assert known == sorted(known, reverse=True)


def test_an_error_of_the_disk_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "o.db"

    def text(code: int) -> str:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = code
        return error_text(error, path)

    assert text(sqlite3.SQLITE_FULL) == f"the disk of {path} is full; make room"
    assert text(sqlite3.SQLITE_READONLY) == f"{path} cannot be written to; is the file system mounted read-only?"
    assert text(sqlite3.SQLITE_IOERR | (3 << 8)).endswith("look at the kernel's log (dmesg)")
    assert text(sqlite3.SQLITE_CANTOPEN).startswith(f"{path} cannot be opened")
    assert error_text(PermissionError(13, "Permission denied", str(tmp_path)), path) == (
        f"{tmp_path}: no permission; give the agent's user write access to {tmp_path}"
    )
