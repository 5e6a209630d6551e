"""The shims bite: each does to a small program what it is to do to the agent. And the model of a disk without power."""

from __future__ import annotations

import errno
import os
import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from chaos_journal import SECTOR, Change, Fate, Op, Replay, files_in, read, write
from chaos_shims import Disk, Reads, WallClock, merged

RNG = random.Random(1)


def run(code: str, *parts: dict[str, str], **env: str) -> str:
    """A Python with these shims; what it printed."""
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(
        command, env={**os.environ, **merged(parts), **env}, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# ---- the model of the disk


def change(op: Op, offset: int = 0, data: bytes = b"", inode: int = 1) -> Change:
    return Change(op, 0.0, inode, offset, data)


def replayed(*changes: Change, before: dict[str, bytes] | None = None) -> Replay:
    replay = Replay(before)
    for each in changes:
        replay.apply(each)
    return replay


OPEN = change(Op.OPEN, data=b"/d/f")
DIRECTORY = (change(Op.DIR_BEGUN), change(Op.DIR_DONE))
SYNC = (change(Op.SYNC_BEGUN), change(Op.SYNC_DONE))


@pytest.mark.bare
def test_what_was_not_synced_is_dropped_or_kept() -> None:
    replay = replayed(OPEN, change(Op.WRITE, 0, b"one"), *SYNC, *DIRECTORY, change(Op.WRITE, 3, b"two"))
    assert replay.image("dropped", RNG) == {"f": b"one"}
    assert replay.image("kept", RNG) == {"f": b"onetwo"}
    assert {bytes(replay.image("torn", RNG)["f"]) for _ in range(50)} == {b"one", b"onetwo"}


@pytest.mark.bare
def test_a_sync_covers_what_was_written_before_it_began_and_only_once_it_is_done() -> None:
    begun = [OPEN, *DIRECTORY, change(Op.WRITE, 0, b"one"), change(Op.SYNC_BEGUN), change(Op.WRITE, 3, b"two")]
    assert replayed(*begun).image("dropped", RNG) == {"f": b""}
    assert replayed(*begun, change(Op.SYNC_DONE)).image("dropped", RNG) == {"f": b"one"}


@pytest.mark.bare
def test_a_name_lasts_from_the_sync_of_its_directory_on() -> None:
    new = [OPEN, change(Op.WRITE, 0, b"one"), *SYNC]
    assert replayed(*new).image("dropped", RNG) == {}
    removed = [*new, *DIRECTORY, change(Op.UNLINK, data=b"/d/f")]
    assert replayed(*removed).image("dropped", RNG) == {"f": b"one"}
    assert replayed(*removed).image("kept", RNG) == {}
    assert replayed(*removed, *DIRECTORY).image("dropped", RNG) == {}
    renamed = [*new, *DIRECTORY, change(Op.RENAME, data=b"/d/f\0/d/g")]
    assert replayed(*renamed).image("dropped", RNG) == {"f": b"one"}
    assert replayed(*renamed, *DIRECTORY).image("dropped", RNG) == {"g": b"one"}


@pytest.mark.bare
def test_a_file_that_was_there_is_there() -> None:
    shrunk = replayed(OPEN, change(Op.TRUNCATE, 1), before={"f": b"one", "g": b"two"})
    assert shrunk.image("dropped", RNG) == {"f": b"one", "g": b"two"}
    assert shrunk.image("kept", RNG) == {"f": b"o", "g": b"two"}


@pytest.mark.bare
def test_a_write_is_torn_by_sectors() -> None:
    replay = replayed(OPEN, *DIRECTORY, change(Op.WRITE, 100, b"x" * 1000), before={"f": b"." * 2000})
    seen = set()
    for _ in range(200):
        content = replay.image("torn", RNG)["f"]
        bits = [content[place : place + 1] for place in (100, SECTOR, 2 * SECTOR)]
        assert content == (
            b"." * 100 + bits[0] * 412 + bits[1] * 512 + bits[2] * 76 + b"." * 900
        )  # whole sectors, each old or new
        seen.add(tuple(bits))
    assert len(seen) == 8


# ---- the disk shim, under SQLite

COMMITS = """
import os, sqlite3
db = sqlite3.connect(os.environ["DB"], isolation_level=None)
db.execute("PRAGMA journal_mode = WAL")
db.execute("PRAGMA wal_autocheckpoint = 20")
db.execute("PRAGMA synchronous = " + os.environ["SYNC"])
db.execute("CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, filler TEXT)")
fd = os.open(os.path.dirname(os.environ["DB"]), os.O_RDONLY)
os.fsync(fd)
for n in range(100):
    db.execute("INSERT INTO t VALUES (?, ?)", (n, "x" * 500))
    print(n, flush=True)
os._exit(0)  # as a kill: nothing is tidied up
"""


def committed(directory: Path) -> int:
    """Rows of the database; raises sqlite3.DatabaseError if it is no whole one."""
    with closing(sqlite3.connect(directory / "x.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        try:
            return int(db.execute("SELECT COUNT(*) FROM t").fetchone()[0])
        except sqlite3.OperationalError:  # not made yet
            return 0


def journalled(tmp_path: Path, synchronous: str) -> tuple[dict[str, bytes], list[Change]]:
    state = tmp_path / "disk"
    state.mkdir()
    before = files_in(state)
    disk = Disk(state, tmp_path, "x", journal=True)
    assert disk.journal is not None
    printed = run(COMMITS, disk.env, DB=f"{disk.env['CHAOS_DISK']}/x.db", SYNC=synchronous)
    assert printed.splitlines()[-1] == "99"
    return before, list(read(disk.journal))


@pytest.mark.parametrize("fate", ["dropped", "torn", "kept"])
def test_sqlite_keeps_every_commit_over_every_power_cut(tmp_path: Path, fate: Fate) -> None:
    before, changes = journalled(tmp_path, "FULL")
    replay = Replay(before)
    least = 0
    for place, each in enumerate(changes):
        replay.apply(each)
        if place % 7 == 0 or place == len(changes) - 1:
            write(replay.image("dropped", RNG), tmp_path / "image")
            durable = committed(tmp_path / "image")
            assert durable >= least, "a commit that was there is gone"
            least = durable
            write(replay.image(fate, RNG), tmp_path / "image")
            assert committed(tmp_path / "image") >= durable
    assert least == 100


def test_without_syncs_a_power_cut_loses_what_was_committed(tmp_path: Path) -> None:
    """The control: were the shim to miss a write, or to count it as synced, this would find all rows."""
    before, changes = journalled(tmp_path, "OFF")
    replay = Replay(before)
    for each in changes:
        replay.apply(each)
    write(replay.image("kept", RNG), tmp_path / "image")
    assert committed(tmp_path / "image") == 100
    image = replay.image("dropped", RNG)
    write(image, tmp_path / "image")
    assert committed(tmp_path / "image") < 100


def test_the_journal_is_what_the_disk_holds(tmp_path: Path) -> None:
    before, changes = journalled(tmp_path, "FULL")
    replay = Replay(before)
    for each in changes:
        replay.apply(each)
    assert replay.image("kept", RNG) == files_in(tmp_path / "disk")


def test_errors_on_demand(tmp_path: Path) -> None:
    disk = Disk(tmp_path, tmp_path, "x")
    disk.fail(write=errno.ENOSPC, sync=errno.EIO)
    code = """
import os
directory = os.environ["CHAOS_DISK"]
def attempt(call, *args):
    try:
        return call(*args)
    except OSError as error:
        print(error.errno)
attempt(os.open, directory + "/new", os.O_CREAT | os.O_RDWR)
fd = os.open(directory + "/old", os.O_RDONLY)
attempt(os.fsync, fd)
attempt(os.rename, directory + "/old", directory + "/new")
attempt(os.unlink, directory + "/old")
print(os.path.exists(directory + "/old"))
"""
    (tmp_path / "old").touch()
    printed = run(code, disk.env).split()
    assert printed == [str(errno.ENOSPC), str(errno.EIO), str(errno.ENOSPC), str(errno.ENOSPC), "True"]
    assert disk.failed == 4


def test_slow_syncs_on_demand(tmp_path: Path) -> None:
    disk = Disk(tmp_path, tmp_path, "x")
    disk.delay(0.2)
    code = (
        "import os, time; fd = os.open(os.environ['CHAOS_DISK'] + '/new', os.O_CREAT | os.O_RDWR); "
        "begin = time.monotonic(); os.fsync(fd); print(time.monotonic() - begin)"
    )
    assert float(run(code, disk.env)) >= 0.2
    assert disk.synced == 1


# ---- the clock shim

WALL = "import time; print(time.time(), time.time_ns() / 1e9, time.monotonic(), time.clock_gettime(0))"


@pytest.mark.parametrize("shift", [-365.25 * 86400, 30.0])
def test_the_wall_clock_alone_is_shifted(tmp_path: Path, shift: float) -> None:
    clock = WallClock(tmp_path, "x", shift=shift)
    wall, mono = time.time(), time.monotonic()
    one, two, monotonic, three = map(float, run(WALL, clock.env).split())
    clock.close()
    for shown in (one, two, three):
        assert shown - shift - wall == pytest.approx(0.0, abs=5.0)
    assert mono <= monotonic <= time.monotonic()


def test_a_step_cancels_timers_and_another_boot_has_another_id(tmp_path: Path) -> None:
    clock = WallClock(tmp_path, "x", synchronised=False)
    code = """
import ctypes, os, select, struct, time
libc = ctypes.CDLL(None, use_errno=True)
print(libc.adjtimex(ctypes.create_string_buffer(512)), open("/proc/sys/kernel/random/boot_id").read().strip())
fd = libc.timerfd_create(0, 0o2004000)
far = struct.pack("qqqq", 0, 0, int(time.time()) + 10**9, 0)
assert libc.timerfd_settime(fd, 3, far, None) == 0
assert not select.select([fd], [], [], 0)[0]
print("armed", flush=True)
assert select.select([fd], [], [], 20)[0]
try:
    os.read(fd, 8)
except OSError as error:
    print(error.errno)
assert not select.select([fd], [], [], 0)[0]
print(time.time())
"""
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code],
        env={**os.environ, **clock.env},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    answer, boot = child.stdout.readline().split()
    assert answer == "5"  # TIME_ERROR, adjtimex(2)
    assert boot != Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert child.stdout.readline() == "armed\n"
    clock.step(86400.0)
    printed = child.stdout.read().split()
    child.stdout.close()
    assert child.wait(20) == 0
    clock.close()
    assert int(printed[0]) == errno.ECANCELED
    assert float(printed[1]) - time.time() == pytest.approx(86400.0, abs=30.0)


# ---- the shim that writes down reads


def test_reads_of_ptys_are_written_down(tmp_path: Path) -> None:
    reads = Reads(tmp_path, "x")
    master, slave = os.openpty()
    name = os.ttyname(slave)
    pts = int(name.rpartition("/")[2])
    os.write(master, b"abc\ndefg\n")
    code = (
        "import os, sys; fd = os.open(os.environ['TTY'], os.O_RDWR); print(os.read(fd, 100)); print(os.read(fd, 100))"
    )
    before = time.monotonic()
    run(code, reads.env, TTY=name)
    after = time.monotonic()
    os.close(master)
    os.close(slave)
    assert reads.total(pts) == 9  # the line discipline gives a line at a time: two reads
    first, second = reads.when(pts, 4), reads.when(pts, 9)
    assert first is not None
    assert second is not None
    assert before <= first < second <= after
    assert reads.when(pts, 1) == first
    assert reads.when(pts, 5) == second
    assert reads.when(pts, 10) is None
