"""Disks that are full, fail, are read-only or slow: the agent goes on from memory, says so, and comes back itself."""

from __future__ import annotations

import errno
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from chaos_journal import Op, read
from chaos_row import Row
from chaos_shims import Disk
from chaos_station import Stage, Station

from bench import common

RATE = 100.0


def degraded(status: dict[str, Any]) -> str | None:
    """What the status says is wrong with the outbox's disk."""
    disk = status.get("outbox", {}).get("disk", {})
    return disk["reason"] if disk.get("state") == "degraded" else None


@contextmanager
def tmpfs(directory: Path, size: str) -> Iterator[None]:
    """A file system of its own. Needs root."""
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)], check=True, timeout=10)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True, timeout=10)


def remount(directory: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(directory)], check=True, timeout=10)


def _fails_for_a_while(
    station: Station, what: str, times: int, spoil: Callable[[], object], repair: Callable[[], object], durability: str
) -> Row:
    """The disk fails while the link is up, and while it is away; then it is repaired, and proven by a kill -9."""
    device = station.device
    station.start()
    station.open()
    device.run(0.3, RATE)
    for _ in range(times):
        spoil()
        device.run(0.3, RATE)
        station.cut()
        device.run(0.7, RATE)  # longer than spill_after: all of it should go to the disk
        station.mend()
        station.until(lambda: degraded(station.status()), "a status that says the disk fails")
        assert "outbox.degraded" in station.log, "the log says nothing of the disk"
        station.settle()  # all of it was delivered, with the disk as it is
        repair()
        station.until(lambda: not degraded(station.status()), "a status that says the disk is well again")
        assert "outbox.recovered" in station.log, "the log does not say that the disk is well again"
        station.cut()
        device.run(1.0, RATE)
        station.kill()  # a disk that is well again keeps what it is given
        station.start()
        station.mend()
        station.open()
        station.settle()
    station.terminate()
    bound = {"strict": 0.5, "spill": 0.75}[durability]
    row = Row(what, times, station.verdict(bound=bound))
    row.notes.append("said in status and log; by itself back on the disk, as a kill -9 showed")
    return row


def failing(number: int, times: int, *, durability: str = "spill") -> Row:
    """Every write and sync fails with that errno, on open files as on new ones."""
    with Stage() as stage:
        state = stage.folder / "disk"
        disk = Disk(state, stage.folder, "s")
        station = Station(
            stage, "s", state=state, shims=[disk.env], outbox={"durability": durability}, status={"interval": "200ms"}
        )
        what = f"{errno.errorcode[number]} from each write and sync, `{durability}`"
        row = _fails_for_a_while(
            station, what, times, partial(disk.fail, write=number, sync=number), disk.fail, durability
        )
        row.notes.append(f"{disk.failed} calls failed")
        row.limit("the disk did fail", disk.failed > 0)
    return row


def killed_while_failing(number: int, times: int, *, read: bool, durability: str = "strict") -> Row:
    """kill -9 while the disk fails, a start on that disk, and another kill: numbers are still given once.

    read: nothing can be read of it either, so that nobody knows which numbers were given. The link is there: what was
    delivered is delivered.
    """
    with Stage() as stage:
        state = stage.folder / "disk"
        disk = Disk(state, stage.folder, "s")
        station = Station(
            stage, "s", state=state, shims=[disk.env], outbox={"durability": durability}, status={"interval": "200ms"}
        )
        for _ in range(times):
            station.start()
            station.open()
            station.device.run(0.3, RATE)
            disk.fail(write=number, sync=number, read=number if read else 0)
            station.device.run(0.5, RATE)
            station.kill()
            station.start()  # on a disk that fails from the beginning
            station.open()
            station.device.run(0.5, RATE)
            station.kill()
            disk.fail()
        station.start()
        station.open()
        station.settle()
        station.terminate()
        verdict = station.verdict(bound=0.5)
    how = "reads fail too" if read else "writes and syncs"
    row = Row(f"killed, and started, while {errno.errorcode[number]} comes from the disk ({how})", 2 * times, verdict)
    row.limit("the disk did fail", disk.failed > 0)
    return row


def full(times: int, *, durability: str = "spill") -> Row:
    """A file system of 1 MiB that somebody else fills to the last block, and clears again."""
    with Stage() as stage:
        state = stage.folder / "disk"
        stage.stack.enter_context(tmpfs(state, "1m"))
        station = Station(stage, "s", state=state, outbox={"durability": durability}, status={"interval": "200ms"})
        filler = state / "filler"
        return _fails_for_a_while(
            station,
            f"disk full (tmpfs of 1 MiB), `{durability}`",
            times,
            partial(_fill, filler),
            partial(filler.unlink, missing_ok=True),
            durability,
        )


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def read_only(*, durability: str = "spill") -> Row:
    """The file system is read-only when the agent starts, and is mounted read-write while it runs."""
    with Stage() as stage:
        state = stage.folder / "disk"
        stage.stack.enter_context(tmpfs(state, "16m"))
        station = Station(stage, "s", state=state, outbox={"durability": durability}, status={"interval": "200ms"})
        station.start()
        station.open()
        station.device.run(0.3, RATE)
        station.settle()
        station.terminate()
        remount(state, "ro")
        return _fails_for_a_while(
            station,
            f"read-only at the start, remounted read-write later, `{durability}`",
            1,
            lambda: None,
            partial(remount, state, "rw"),
            durability,
        )


def slow(seconds: float, *, delay: float, durability: str) -> Row:
    """Each sync takes so much longer. The loop's lag is seen by a report that it is to send every 100 ms."""
    interval = 0.1
    with Stage() as stage:
        state = stage.folder / "disk"
        disk = Disk(state, stage.folder, "s")
        station = Station(
            stage, "s", state=state, shims=[disk.env], outbox={"durability": durability}, status={"interval": "100ms"}
        )
        station.start()
        station.open()
        disk.delay(delay)
        synced = disk.synced
        begin = time.monotonic()
        station.device.run(seconds / 2, RATE)
        station.cut()
        station.device.run(0.6, RATE)
        station.mend()
        station.device.run(seconds / 2, RATE)
        station.settle()
        ended = time.monotonic()
        syncs = disk.synced - synced
        disk.delay(0)
        station.terminate()
        reports = [at for at, _ in stage.ledger.states("s/status") if begin + seconds / 2 + 1.6 < at < ended]
        first = [at for at, _ in stage.ledger.states("s/status") if begin < at < begin + seconds / 2]
        verdict = station.verdict()
    row = Row(f"slow disk: each sync {1000 * delay:.0f} ms longer, `{durability}`", syncs, verdict)
    gaps = [b - a for part in (first, reports) for a, b in pairwise(part)]
    typical = common.quantile(gaps, 0.5)
    worst = max(gaps, default=float("inf"))
    row.notes.append(f"report due each 100 ms came after {1000 * typical:.0f} ms (p50), {1000 * worst:.0f} ms (max)")
    row.limit("the loop does not wait for the disk", typical <= interval + delay / 4)
    row.limit("its reports are never late by half a sync", worst <= interval + delay / 2, speed=True)
    if durability == "strict":
        row.limit("the disk was slow", syncs >= (seconds + 0.6) / (delay + 0.2))
    return row


def healthy(seconds: float) -> Row:
    """Nothing is broken: under ``spill`` on a healthy link not a byte is written."""
    with Stage() as stage:
        state = stage.folder / "disk"
        disk = Disk(state, stage.folder, "s", journal=True)
        assert disk.journal is not None
        station = Station(stage, "s", state=state, shims=[disk.env], outbox={"durability": "spill"})
        station.start()
        station.open()
        station.settle()  # its range of numbers is reserved
        station.until(lambda: disk.synced, "a sync of the numbers' range")
        begin = time.monotonic()
        station.device.run(seconds, RATE)
        station.settle()
        end = time.monotonic()
        written = [each for each in read(disk.journal) if begin < each.at < end and each.op is Op.WRITE]
        station.terminate()
        verdict = station.verdict()
    row = Row(f"nothing, for {seconds:g} s at {RATE:.0f} lines/s, `spill`", 1, verdict)
    octets = sum(len(each.data) for each in written)
    row.notes.append(f"{octets} bytes written")
    # A reading is not acknowledged within spill_after where the machine is busy with other things.
    row.limit("nothing is written on a healthy link", octets == 0, speed=True)
    row.limit("nothing comes twice", verdict.duplicates == 0)
    return row
