"""Power cuts: after each kill the disk holds only what had been synced, or any part of the rest."""

from __future__ import annotations

import random
import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import orjson
from chaos_journal import Change, Fate, Replay, files_in, read, write
from chaos_judge import Verdict
from chaos_row import Row, side_by_side
from chaos_shims import Disk
from chaos_station import Stage, Station
from rows_kill import ANY_MACHINE, COMMIT, RATE, SPILL_AFTER

from agent.outbox_store import Boot, Store

FATES: tuple[Fate, ...] = ("dropped", "torn", "kept")
EVERYTHING = 1 << 62
SEEN = 0.25
"""Seconds within which the judge has certainly noted what the agent had published when the power went."""


@dataclass
class Images:
    """What earlier moments would have left on the disk."""

    opened: int = 0
    missing: int = 0
    """Lines that were read in time, and are neither in the file nor delivered."""


def kept_in(image: dict[str, bytes], aside: Path) -> set[int]:
    """Numbers of the lines whose readings an outbox holds. Raises sqlite3.Error if the file does not open."""
    if "outbox.db" not in image:
        return set()
    write(image, aside)  # opening it changes it
    store = Store(aside / "outbox.db")
    store.open(Boot("another", 0, False))
    try:
        return {orjson.loads(reading.body)["n"] for reading in store.fetch(0, EVERYTHING, 1_000_000)}
    finally:
        store.close()


def _look_at(
    station: Station,
    before: dict[str, bytes],
    begun: float,
    changes: list[Change],
    count: int,
    bound: float,
    rng: random.Random,
) -> Images:
    """Cut the power at ``count`` earlier moments of this start too, and look what the files hold.

    before, begun: what they held at its start, and when that was.
    """
    found = Images()
    aside = station.stage.folder / f"{station.name}-image"
    held = kept_in(before, aside)
    lines = [line for line in station.device.lines() if line.read is not None and line.read >= begun]
    arrivals = [(arrival.number, arrival.at) for arrival in station.arrivals()]
    replay = Replay(before)
    place = 0
    for moment in sorted(rng.sample(range(len(changes)), min(count, len(changes)))):
        while place <= moment:
            replay.apply(changes[place])
            place += 1
        cut = changes[moment].at
        due = held | {line.number for line in lines if line.read is not None and line.read <= cut - bound}
        due -= {number for number, at in arrivals if at <= cut + SEEN}
        due -= kept_in(replay.image(rng.choice(FATES), rng), aside)
        found.opened += 1
        found.missing += len(due)
    shutil.rmtree(aside, ignore_errors=True)
    return found


def _cut_at_random(
    station: Station, disk: Disk, rounds: int, seed: int, *, images: int, bound: float, found: Images
) -> None:
    rng = random.Random(seed)
    device = station.device
    assert disk.journal is not None
    away = False
    for _ in range(rounds):
        before, begun = files_in(station.state), time.monotonic()
        disk.journal.unlink(missing_ok=True)
        station.start()
        station.open()
        device.run(rng.uniform(0, 0.4), RATE)
        if rng.random() < 0.6:
            away = not away
            (station.cut if away else station.mend)()
            device.run(rng.uniform(0, 1.2), RATE)
        station.kill()
        changes = list(read(disk.journal))
        replay = Replay(before)
        for change in changes:
            replay.apply(change)
        looked = _look_at(station, before, begun, changes, images, bound, rng)
        found.opened += looked.opened
        found.missing += looked.missing
        write(replay.image(rng.choice(FATES), rng), station.state)
    station.mend()
    station.start()
    station.open()
    station.settle()
    station.terminate()


def power_cut(durability: str, rounds: int, *, seed: int, images: int, lanes: int = 2, long: bool) -> Row:
    """rounds in all; after each, the power is also cut at so many earlier moments, and the file looked at."""
    bound = {"strict": 0.0, "spill": SPILL_AFTER, "memory": float("inf")}[durability] + (
        COMMIT if long else ANY_MACHINE
    )
    found = Images()
    with Stage() as stage:
        stations = []
        works = []
        for lane in range(lanes):
            state = stage.on_disk(f"s{lane}") if long else stage.folder / f"s{lane}-disk"
            disk = Disk(state, stage.folder, f"s{lane}", journal=True)
            station = Station(stage, f"s{lane}", state=state, shims=[disk.env], outbox={"durability": durability})
            stations.append(station)
            works.append(
                partial(
                    _cut_at_random,
                    station,
                    disk,
                    rounds // lanes,
                    seed + lane,
                    images=images,
                    bound=bound,
                    found=found,
                )
            )
        side_by_side(works)
        verdict = sum((station.verdict(bound=bound) for station in stations), Verdict())
        cuts = sum(len(station.kills) for station in stations)
        aside = [path.name for station in stations for path in station.state.glob("*.damaged-*")]
    row = Row(f"power cut, `{durability}`, broker away half the time", cuts + found.opened, verdict)
    row.notes.append(f"{cuts} went on from what was left; {found.opened} more were opened and looked at")
    if durability != "memory":
        row.notes.append(f"oldest line lost was read {1000 * verdict.oldest_loss:.0f} ms before the cut")
    row.limit("what was read in time stands in each image, or had arrived", found.missing == 0)
    row.limit("no file was damaged", not aside)
    row.limit("every ts within 50 ms of the reading", verdict.worst_ts <= 0.05, speed=True)
    return row
