"""Wall clocks that step, boards that boot in 1970: nothing is lost or repeated, no timer moves, every time is true."""

from __future__ import annotations

import time

from chaos_row import Row
from chaos_shims import WallClock
from chaos_station import Stage, Station

from bench import common

YEAR = 365.25 * 86400
RATE = 20.0
PERIOD = 0.1
"""Seconds between two readings of the host's driver: the timer that must not move."""
HOST = {
    "name": "host",
    "driver": "host",
    "interval": "100ms",
    "disks": [],
    "network": [],
    "temperatures": False,
    "processes": False,
    "pi": False,
}
TRUE = 0.05
"""Seconds by which a reading's time may be off the device's own record."""


def in_1970() -> float:
    """The shift of a clock that has just begun to count, as a board's without a battery does."""
    return 60.0 - time.time()


def _paced(station: Station, since: float, until: float) -> tuple[int, float]:
    """Readings of the host's driver that came then, and how many there should have been."""
    came = sum(since <= arrival.at < until for arrival in station.arrivals("host"))
    return came, (until - since) / PERIOD


def steps(shifts: list[float], *, seconds: float, long: bool) -> Row:
    """Somebody sets the clock wrong, and right again.

    Where the new time cannot be (-1 year is before this release), what was believed before stays true. One that can be
    is believed: readings then carry the wrong time that somebody has set, and are true again once the clock is.
    """
    with Stage() as stage:
        clock = WallClock(stage.folder, "s", synchronised=False)
        station = Station(stage, "s", shims=[clock.env], more=[HOST], outbox={"durability": "strict"})
        station.start()
        station.open()
        station.device.run(1.0, RATE)
        off: list[float] = []
        paces: list[tuple[int, float]] = []
        for shift in shifts:
            for wrong in (shift, 0.0):
                begin = time.monotonic()
                clock.step(wrong, synchronised=False)
                station.device.run(seconds, RATE)
                station.settle()
                end = time.monotonic()
                paces.append(_paced(station, begin, end))
                offset = time.time() - time.monotonic()
                read = {line.number: line.read for line in station.device.lines() if (line.read or 0.0) > begin}
                errors = [a.wall - offset - read[a.number] for a in station.arrivals() if a.number in read]
                believed = wrong if wrong > -YEAR / 2 else 0.0
                off.append(max(abs(error - believed) for error in errors))
        station.terminate()
        clock.close()
        verdict = station.verdict(times=False)
    unsynced = sum(arrival.unsynced for arrival in station.arrivals())
    row = Row("wall clock stepped by " + ", ".join(_words(shift) for shift in shifts), 2 * len(shifts), verdict)
    row.limit("nothing comes twice", verdict.duplicates == 0)
    _judge_pace(row, paces, long)
    row.limit("none says that its time is wrong", unsynced == 0)
    worst = max(off)
    row.notes.append(f"`ts` off by {1000 * worst:.1f} ms at most")
    row.limit("the time is the believed clock's within 50 ms", worst <= (TRUE if long else 1.0))
    return row


def _judge_pace(row: Row, paces: list[tuple[int, float]], long: bool) -> None:
    shares = [came / due for came, due in paces]
    row.notes.append(f"timer of 100 ms: {100 * min(shares):.0f} to {100 * max(shares):.0f} % of its firings came")
    row.limit("no timer stands still", min(shares) >= (0.9 if long else 0.3))
    row.limit("no timer fires more often", all(came <= due + 3 for came, due in paces))


def _words(shift: float) -> str:
    return f"{shift / YEAR:+.0f} year" if abs(shift) >= YEAR else f"{shift:+.0f} s"


def boot_in_1970(*, seconds: float, hold: float, stale: float | None = None, long: bool) -> Row:
    """A board without a battery clock reads for a while, then its clock is set; readings wait for that.

    stale: the clock does not show 1970, but a believable time so many seconds ago; an earlier run has saved a later one
    in the outbox, by which it is known to be wrong.
    """
    with Stage() as stage:
        clock = WallClock(stage.folder, "s", synchronised=False)
        station = Station(
            stage, "s", shims=[clock.env], clock={"hold": hold}, more=[HOST], outbox={"durability": "spill"}
        )
        station.start()
        station.open()
        station.device.run(0.5, RATE)
        station.settle()
        station.terminate()  # which leaves the true time in the outbox
        clock.boot()
        clock.step(in_1970() if stale is None else -stale, synchronised=False)
        before = len(station.arrivals())
        station.start()
        station.open()
        begin = time.monotonic()
        station.device.run(seconds, RATE)
        early = len(station.arrivals()) - before
        clock.step(0.0, synchronised=True)
        synchronised = time.monotonic()
        station.device.run(1.0, RATE)
        station.settle()
        ended = time.monotonic()
        pace = _paced(station, begin, ended)
        station.terminate()
        clock.close()
        verdict = station.verdict()
        unsynced = sum(arrival.unsynced for arrival in station.arrivals())
        late = [a.at for a in station.arrivals()[before:] if a.at >= synchronised]
    what = "boots in 1970" if stale is None else f"boots with a clock {stale:.0f} s behind the last run"
    row = Row(f"{what}, reads for {seconds:.0f} s, then synchronises, `hold = {hold:.0f}`", 1, verdict)
    row.notes.append(f"`ts` off by {1000 * verdict.worst_ts:.2f} ms at most")
    row.notes.append(f"the first came {1000 * (late[0] - synchronised):.0f} ms after the step")
    row.limit("readings wait for a true clock", early == 0)
    row.limit("none says that its time is wrong", unsynced == 0)
    row.limit("every ts within 50 ms of the device's own record", verdict.worst_ts <= (TRUE if long else 1.0))
    row.limit("nothing comes twice", verdict.duplicates == 0)
    _judge_pace(row, [pace], long)
    return row


def never_synchronised(*, seconds: float, hold: float) -> Row:
    """The clock stays in 1970: readings go out after ``hold``, and say that their time is wrong."""
    with Stage() as stage:
        clock = WallClock(stage.folder, "s", shift=in_1970(), synchronised=False)
        station = Station(stage, "s", shims=[clock.env], clock={"hold": hold}, outbox={"durability": "spill"})
        station.start()
        station.open()
        station.device.run(seconds, RATE)
        station.settle()
        station.terminate()
        clock.close()
        lines = {line.number: line for line in station.device.lines()}
        waits = [arrival.at - (lines[arrival.number].read or 0.0) for arrival in station.arrivals()]
        wrong = sum(not arrival.unsynced for arrival in station.arrivals())
        verdict = station.verdict(times=False)
    row = Row(f"a clock that stays in 1970, `hold = {hold:g}`", 1, verdict)
    row.notes.append(f"each marked `unsynced`, sent {common.quantile(waits, 0.5):.2f} s after it was read (p50)")
    row.limit("each says that its time is wrong", wrong == 0)
    row.limit("none is sent before its time", min(waits) >= hold - 0.05 or hold == 0)
    return row


def earlier_boot(*, true: bool) -> Row:
    """Readings are on disk when the board reboots, and go out by a boot whose clock is true.

    true: the earlier boot's clock was; else it never was, and the readings say so.
    """
    with Stage() as stage:
        clock = WallClock(stage.folder, "s", shift=0.0 if true else in_1970(), synchronised=true)
        station = Station(stage, "s", shims=[clock.env], clock={"hold": 60}, outbox={"durability": "strict"})
        station.cut()
        station.start()
        station.open()
        station.device.run(1.0, RATE)
        count = station.device.number
        station.until(station.device.all_read, "reading of all lines")
        station.device.run(0.5, RATE)
        station.kill()
        clock.boot()
        clock.step(0.0, synchronised=True)
        station.mend()
        station.start()
        station.open()
        station.settle()
        station.terminate()
        clock.close()
        verdict = station.verdict(bound=0.5, times=true)
        old = [arrival for arrival in station.arrivals() if arrival.number < count]
        new = [arrival for arrival in station.arrivals() if arrival.number >= count + RATE]
    how = "whose clock was true" if true else "that never saw a true clock"
    row = Row(f"readings of an earlier boot {how}", 1, verdict)
    row.limit("all of them came", len(old) == count)
    row.limit("those of the earlier boot say so if their time is wrong", all(a.unsynced != true for a in old))
    row.limit("those of this boot do not", not any(a.unsynced for a in new))
    if true:
        row.notes.append(f"`ts` off by {1000 * verdict.worst_ts:.2f} ms at most")
        row.limit("every ts is true", verdict.worst_ts <= 1.0)
    return row
