"""Devices that come and go, and a backlog of a million."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

from chaos_row import Row
from chaos_station import Stage, Station

from bench import common


def replug(times: int, *, seed: int, durability: str = "spill") -> Row:
    """Unplugged in the middle of a burst; back at the same path a moment later."""
    rng = random.Random(seed)
    back: list[float] = []
    with Stage() as stage:
        station = Station(stage, "s", url=stage.broker.url, outbox={"durability": durability})
        device = station.device
        station.start()
        for turn in range(times + 1):
            begin = time.monotonic()
            station.open()
            back.append(time.monotonic() - begin)
            if turn == times:
                break
            for _ in range(rng.randint(1, 30)):
                device.line()
                if rng.random() < 0.1:  # now and then it pauses, so that all is read, or not quite
                    common.sleep_until(time.monotonic() + rng.uniform(0, 0.004))
            if rng.random() < 0.3:
                device.half_line()
            device.pull()
            common.sleep_until(time.monotonic() + rng.uniform(0, 0.05))
            device.plug()
        station.settle()
        station.terminate()
        verdict = station.verdict()
    row = Row("unplugged in the middle of a burst, and plugged in again", times, verdict, len(device.cut))
    row.notes.append(f"{verdict.unread} lines more were never read: the kernel drops what an unplugged device left")
    row.notes.append(f"open again after {1000 * common.quantile(back[1:], 0.5):.0f} ms (p50)")
    row.limit("nothing comes twice", verdict.duplicates == 0)
    return row


def backlog(count: int, *, durability: str, replay: str, long: bool) -> Row:
    """The broker is away while so many lines are read; then it is back, and a second device goes on speaking."""
    rate = 20.0
    with Stage() as stage:
        station = Station(
            stage,
            "s",
            devices=("flood", "live"),
            state=stage.on_disk("s") if long else None,
            outbox={"durability": durability, "replay": replay},
            mqtt={"batch": 100},
        )
        flood, live = station.devices["flood"], station.devices["live"]
        station.start()
        station.open()
        flood.flood(2000)  # until all its code is loaded and its caches are full
        station.settle()
        child = station.child
        assert child is not None
        memory = _Memory(child)
        station.cut()
        begin = time.monotonic()
        flood.flood(count)
        station.until(flood.all_read, "reading of the flood")
        built = time.monotonic() - begin
        built_mb = memory.most - memory.first
        known = len(station.arrivals("flood"))
        talker = _Talker(lambda: live.run(1.0, rate))
        station.mend()
        wanted = flood.number - 1
        station.until(
            lambda: any(reading_number(m) == wanted for m in stage.recorder.of("s/flood/telemetry")[-3:]),
            "the last of the backlog",
            timeout=600,
        )
        talker.end()
        drained_mb = memory.end() - memory.first
        station.settle()
        station.terminate()
        came = [arrival.at for arrival in station.arrivals("flood")[known : known + count]]
        seconds = came[-1] - came[0]
        lines = {line.number: line for line in live.lines()}
        window = (came[0], came[-1])
        waits = [
            arrival.at - lines[arrival.number].written
            for arrival in station.arrivals("live")
            if window[0] <= lines[arrival.number].written <= window[1]
        ]
        verdict = station.verdict()
    per_second = count / seconds if seconds else float("inf")
    row = Row(f"{count:,} readings of backlog, `{durability}`, `{replay}`, `batch = 100`", 1, verdict)
    row.figures = {
        "built_per_s": count / built,
        "drained_per_s": per_second,
        "built_rss_growth_mib": built_mb,
        "rss_growth_mib": drained_mb,
    }
    row.notes.append(f"built at {count / built:,.0f}/s, drained at {per_second:,.0f}/s")
    row.notes.append(f"RSS grew by {built_mb:.1f} MB while it was built, {drained_mb:.1f} MB at most in all")
    row.limit("drains at 50,000 readings/s or more", per_second >= 50_000, speed=True)
    row.limit("RSS grows by less than 15 MB", drained_mb < 15 / 1.048576, speed=True)  # what is young is in memory
    if replay == "live_first" and waits:
        row.figures["live_late_ms"] = 1000 * max(waits)
        row.notes.append(f"live readings meanwhile {1000 * max(waits):.0f} ms late at most")
        row.limit("live readings less than 1 s late meanwhile", max(waits) < 1.0, speed=True)
    row.limit("every ts within 50 ms of the reading", verdict.worst_ts <= 0.05, speed=True)
    return row


def reading_number(message: common.Message) -> int:
    """Of the last reading in a message."""
    number: int = list(common.readings([message]))[-1]["fields"]["n"]
    return number


class _Memory(threading.Thread):
    """Looks at a child's resident memory every 20 ms; in MiB."""

    def __init__(self, child: common.Child) -> None:
        super().__init__(daemon=True)
        self._child = child
        self.first = self.most = child.rss()
        self._ended = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._ended.wait(0.02):
            self.most = max(self.most, self._child.rss())

    def end(self) -> float:
        """The most that it was."""
        self._ended.set()
        self.join()
        return self.most


class _Talker(threading.Thread):
    """Does something again and again, until it is told to end."""

    def __init__(self, turn: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._turn = turn
        self._ended = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._ended.is_set():
            self._turn()

    def end(self) -> None:
        self._ended.set()
        self.join()
