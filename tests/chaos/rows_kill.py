"""kill -9 at random moments, and clean stops under load."""

from __future__ import annotations

import random
import time
from functools import partial

from chaos_judge import Verdict
from chaos_row import Row, side_by_side
from chaos_station import Stage, Station

from bench import common

RATE = 100.0
"""Lines a second of each agent."""

SPILL_AFTER = 0.25
COMMIT = 0.02
"""Seconds that one group commit may take on a quiet machine."""
ANY_MACHINE = 0.5
"""The same where the machine is busy with other things: what a short run judges by. Its files are in memory, too: while
others synced theirs, a commit took 180 ms."""


def _kill_at_random(station: Station, rounds: int, seed: int, *, span: float, outages: bool) -> None:
    """Start, let it work, kill it; some are killed while they start. Ends with all delivered and a clean stop."""
    rng = random.Random(seed)
    device = station.device
    away = False
    for _ in range(rounds):
        station.start()
        if rng.random() < 0.1:  # while it starts, opens its outbox and takes up what the last one left
            common.sleep_until(time.monotonic() + rng.uniform(0, 0.4))
            station.kill()
            continue
        station.open()
        device.run(rng.uniform(0, span), RATE)
        if outages and rng.random() < 0.5:
            away = not away
            (station.cut if away else station.mend)()
            device.run(rng.uniform(0, span), RATE)
        if rng.random() < 0.3:
            device.half_line()
        station.kill()
    station.mend()
    station.start()
    station.open()
    station.settle()
    station.terminate()


def kill_9(durability: str, rounds: int, *, seed: int, span: float = 0.4, outages: bool = False, long: bool) -> Row:
    """rounds in all, by agents side by side; each reads RATE lines a second.

    long: two at a time, for that leaves room on two cores, and the bound is that of a quiet machine.
    """
    lanes = 2 if long else 4
    bound = {"strict": 0.0, "spill": SPILL_AFTER, "memory": float("inf")}[durability] + (
        COMMIT if long else ANY_MACHINE
    )
    with Stage() as stage:
        stations = [
            Station(
                stage,
                f"s{lane}",
                state=stage.on_disk(f"s{lane}") if long else None,
                outbox={"durability": durability},
            )
            for lane in range(lanes)
        ]
        side_by_side(
            [
                partial(_kill_at_random, station, rounds // lanes, seed + lane, span=span, outages=outages)
                for lane, station in enumerate(stations)
            ]
        )
        verdict = sum((station.verdict(bound=bound) for station in stations), Verdict())
        cut = sum(len(station.device.cut) for station in stations)
        kills = sum(len(station.kills) for station in stations)
    row = Row(f"kill -9, `{durability}`{', broker away half the time' if outages else ''}", kills, verdict, cut)
    if durability != "memory":
        row.notes.append(f"oldest line lost was read {1000 * verdict.oldest_loss:.0f} ms before the kill")
    if verdict.duplicates:
        row.notes.append(f"oldest duplicate had come {1000 * verdict.oldest_duplicate:.0f} ms before the kill")
    row.limit("what comes twice had come within 1 s before the break", verdict.oldest_duplicate <= 1.0)
    # In flight, or acknowledged since the last deletion, which comes a tenth of a second later at most.
    row.limit("what comes twice had come 0.1 s and a commit before it", verdict.oldest_duplicate <= 0.15, speed=True)
    row.limit("every ts within 50 ms of the reading", verdict.worst_ts <= 0.05, speed=True)
    return row


def killed_in_outage(times: int, *, seconds: float, durability: str, seed: int, long: bool) -> Row:
    """The broker is away for so long, and the agent is killed once within that; then all that is left arrives."""
    rng = random.Random(seed)
    bound = {"strict": 0.0, "spill": SPILL_AFTER}[durability] + (COMMIT if long else ANY_MACHINE)
    with Stage() as stage:
        state = stage.on_disk("s") if long else None
        station = Station(stage, "s", state=state, outbox={"durability": durability})
        station.start()
        station.open()
        for _ in range(times):
            station.device.run(0.5, RATE)
            station.cut()
            before = rng.uniform(0.1, 1.0) * seconds
            station.device.run(before, RATE)
            station.kill()
            station.start()
            station.open()
            station.device.run(seconds - before, RATE)
            station.mend()
            station.settle()
        station.terminate()
        verdict = station.verdict(bound=bound)
    row = Row(f"broker away for {seconds:g} s, kill -9 within it, `{durability}`", times, verdict)
    row.notes.append(f"oldest line lost was read {1000 * verdict.oldest_loss:.0f} ms before the kill")
    return row


def clean_stop(durability: str, rounds: int, *, seed: int, outages: bool = False) -> Row:
    """SIGTERM while lines come, then a start. outages: some stops with the broker away: the disk keeps the rest."""
    rng = random.Random(seed)
    with Stage() as stage:
        station = Station(
            stage, "s", outbox={"durability": durability}, agent={"stop_timeout": "2s" if outages else "10s"}
        )
        for _ in range(rounds):
            away = outages and rng.random() < 0.5
            station.start()
            station.open()
            station.device.run(rng.uniform(0.1, 0.3), RATE)
            if away:
                station.cut()
                station.device.run(rng.uniform(0.0, 0.5), RATE)
            assert station.child is not None
            station.child.process.terminate()
            begin = time.monotonic()
            turn = 0
            while station.child.process.poll() is None and turn < RATE:  # it speaks on until nobody listens any more
                common.sleep_until(begin + turn / RATE)
                station.device.line()
                turn += 1
            station.wait(0)
            station.mend()
        station.start()
        station.open()
        station.settle()
        station.terminate()
        verdict = station.verdict()
    what = f"clean stop and start under load, `{durability}`{', broker away half the time' if outages else ''}"
    row = Row(what, rounds, verdict)
    if not outages:
        row.limit("nothing comes twice", verdict.duplicates == 0)
    return row
