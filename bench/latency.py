"""From the write to a serial line to the subscriber of the broker: how long a reading takes, beside a bare
pyserial+paho script and the floor.

All run at once, each on a line of its own, asked in turn, so that all see the same machine. One reading is on its way
at a time: what is measured is latency, not a queue. A second agent is `strict`, and beside it stands what it has to
wait for, a commit of one row by a bare SQLite on the same disk (WAL, synchronous = FULL), asked in its turn as well. A
third has a live line in bad company: a silent one, one that is for ever in the middle of a line, one that is missing.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from bench import common

COMMIT = "SQLite commit"
"""Who is no reader of a line, but the disk itself."""


class Disk:
    """A commit of one row, as `strict` waits for it."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("CREATE TABLE reading (id INTEGER PRIMARY KEY, body TEXT)")

    def commit(self) -> float:
        """In seconds."""
        begin = time.monotonic()
        self._db.execute("INSERT INTO reading (body) VALUES (?)", (common.body(0),))
        return time.monotonic() - begin

    def close(self) -> None:
        self._db.close()


def measure(
    subscriber: common.Subscriber,
    lines: dict[str, common.Line],
    samples: int,
    rate: float,
    commit: Callable[[], float],
) -> dict[str, list[float]]:
    """Seconds from write to arrival, by line; each is written to at rate lines/s until there are samples of it."""
    taken: dict[str, list[float]] = {who: [] for who in [*lines, COMMIT]}
    period = 1 / rate
    share = period / (len(lines) + 1)
    rng = random.Random(1)
    begin = time.monotonic()
    for number in range(samples):
        for place, (who, line) in enumerate(lines.items()):
            # A random phase: a fixed one would meet the same instant of everybody's timers each time.
            common.sleep_until(begin + number * period + place * share + rng.random() * share / 2)
            sent = time.monotonic()
            assert line.write(common.body(number))
            deadline = sent + 5
            topic = f"outstation/{who}/live/telemetry"
            while True:
                found = [m for m in subscriber.poll(deadline - time.monotonic()) if m.topic == topic]
                if found:
                    taken[who].append(found[0].at - sent)
                    break
                assert time.monotonic() < deadline, f"line {number} of {who} did not arrive"
        common.sleep_until(begin + number * period + len(lines) * share + rng.random() * share / 2)
        taken[COMMIT].append(commit())
    return taken


def main(argv: list[str] | None = None) -> int:
    parser = common.parser(__doc__)
    parser.add_argument("--samples", type=int, default=3000)
    parser.add_argument("--rate", type=float, default=10.0, help="lines a second on each line")
    options = parser.parse_args(argv)
    samples, rate = (200, 20.0) if options.quick else (options.samples, options.rate)
    where = common.machine()
    with common.stage() as stage:
        recorder = stage.recorder("outstation/+/live/telemetry")
        lines = {"agent": stage.line("live")}
        child = {"agent": stage.agent([common.serial_device("live", lines["agent"])], agent="agent")}

        lines["strict"] = stage.line("live", "strict")
        child["strict"] = stage.agent(
            [common.serial_device("live", lines["strict"])], agent="strict", outbox={"durability": "strict"}
        )

        silent, half = stage.line("silent"), stage.line("half")
        live = lines["company"] = stage.line("live", "company")
        child["company"] = stage.agent(
            [
                common.serial_device("silent", silent),
                common.serial_device("half", half),
                common.serial_device("missing", stage.folder / "tty-missing"),
                common.serial_device("live", live),
            ],
            agent="company",
        )

        lines["bare"] = stage.line("live", "bare")
        child["bare"] = stage.bare([lines["bare"]])
        lines["floor"] = stage.line("live", "floor")
        child["floor"] = stage.peer("floor.py", "floor", lines["floor"])

        for who, one in child.items():
            common.warm_up(recorder, {f"/{who}/live/telemetry": lines[who]}, one)
        recorder.close()
        assert half.write('{"n": 1, "temperature": 2')  # with its newline: one fault; then half a line for good
        os.write(half.master, b'{"n": 2, "temper')
        subscriber = common.Subscriber(stage.broker.port, "outstation/+/live/telemetry")
        disk = Disk(stage.folder / "bare.db")
        measure(subscriber, lines, 20, rate, disk.commit)  # caches, the allocator, TCP's window
        taken = measure(subscriber, lines, samples, rate, disk.commit)
        disk.close()
        subscriber.close()
        figures = {who: common.latencies(values) for who, values in taken.items()}
        rows: list[common.Row] = [
            {"who": who, **figures[who]} for who in ("agent", "strict", "company", "bare", "floor", COMMIT)
        ]
        ours, bare, commit = figures["agent"], figures["bare"], figures[COMMIT]
        added = figures["strict"]["p50_ms"] - ours["p50_ms"]
        limits = [
            common.Limit("p50 at most the bare script's", ours["p50_ms"] <= bare["p50_ms"], speed=True),
            common.Limit("p99 at most 1.2 times the bare script's", ours["p99_ms"] <= 1.2 * bare["p99_ms"], speed=True),
            # 0.2 ms: to the writer's thread and back are two wake-ups.
            common.Limit(
                "`strict` adds a commit and at most 0.2 ms (p50)", added <= commit["p50_ms"] + 0.2, speed=True
            ),
            common.Limit(
                "p99 beside a silent, a half-line and a missing device under 3 ms, or 1.5 times the bare script's",
                figures["company"]["p99_ms"] < max(3.0, 1.5 * bare["p99_ms"]),
                speed=True,
            ),
        ]
        ratios = {
            f"latency: {key}, to bare": bare[f"{key}_ms"] / ours[f"{key}_ms"] for key in ("p50", "p90", "p99")
        } | {"latency: p50, to floor": figures["floor"]["p50_ms"] / ours["p50_ms"]}
        return common.show(f"latency, {rate:g} lines/s on each line", rows, limits, options, where, ratios)


if __name__ == "__main__":
    raise SystemExit(main())
