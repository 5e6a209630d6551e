"""One serial line flooded, as fast as it takes lines: what a subscriber gets each second, what is lost, what it costs.

The agent at each QoS, batch and durability, beside what people write instead and the floor (bench/peers), in turns,
each on a pty of its own with a broker of its own; medians. A pty has flow control: its writer waits, and nothing is
lost before it is read. Writer and subscriber are processes of their own (bench/flooder.py, bench/counter.py). Rates
count from the first write to the last arrival, so that what is only queued has not been delivered.
"""

from __future__ import annotations

import json
import os
import select
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from bench import common
from bench.peer import AGENT, BARE, FLOOR, OTHERS, Setup, missing, start

FIRST = 1_000_000
"""The first number: all have as many digits, so that all lines are as long."""
SILENCE = 5.0
"""Seconds without a message after which what is missing will not come."""
PATIENCE = 240.0
"""Seconds within which everything ends: the slowest peer works off what it has queued."""

ALL = (
    *OTHERS,
    *(
        Setup(AGENT, qos, batch, durability)
        for qos in (1, 0)
        for batch in (1, 100, "auto")
        for durability in ("memory", "spill", "strict")
    ),
)
QUICK = (Setup(BARE), Setup(FLOOR), Setup(AGENT), Setup(AGENT, batch="auto"), Setup(AGENT, 1, "auto", "strict"))


class Tool:
    """A process of ours that says "ready", is told to go on by a line, and answers by lines."""

    def __init__(self, module: str, *words: object, fds: Sequence[int] = ()) -> None:
        self.name = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=common.ROOT,
            pass_fds=fds,
        )
        self.expect("ready")

    def tell(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def hear(self) -> str:
        """Its next line. Raises TimeoutError when it has ended, or none comes."""
        out = self._process.stdout
        assert out
        ready = select.select([out], [], [], PATIENCE)[0]
        line = out.readline().decode().strip() if ready else ""
        if not line:
            raise TimeoutError(f"{self.name} did not answer")
        return line

    def expect(self, line: str) -> None:
        heard = self.hear()
        assert heard == line, f"{self.name} said {heard!r}, not {line!r}"

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def once(setup: Setup, seconds: float) -> dict[str, Any]:
    """Flood one line that ``setup`` reads."""
    tools: list[Tool] = []
    with common.stage(quiet=True) as stage:
        line = stage.line("live")
        child = start(stage, setup, line)
        recorder = stage.recorder(setup.topic)
        common.warm_up(recorder, {setup.topic: line}, child, timeout=60)
        recorder.close()
        stage.recorders.remove(recorder)
        os.set_blocking(line.master, True)
        try:
            tools.append(counter := Tool("bench.counter", stage.broker.port, setup.topic, FIRST))
            tools.append(flooder := Tool("bench.flooder", line.master, seconds, FIRST, fds=[line.master]))
            cpu, written = child.cpu(), child.written()
            flooder.tell("go")
            sent = json.loads(flooder.hear())
            counter.tell(json.dumps([FIRST + sent["sent"] - 1, SILENCE]))
            counter.expect("over")
            used = child.cpu() - cpu
            got = json.loads(counter.hear())
        finally:
            for tool in tools:
                tool.close()
        received = got["received"]
        return {
            "per_s": received / (got["end"] - sent["begin"]) if received else 0.0,
            "sent": sent["sent"],
            "lost": got["lost"],
            "duplicates": got["duplicates"],
            "disordered": got["disordered"],
            "per_message": received / max(1, got["messages"]),
            "cpu_s_per_100k": used / received * 100_000 if received else float("nan"),
            "peak_rss_mib": child.peak_rss(),
            "disk_mb": (child.written() - written) / 1e6,
        }


def measure(setups: Sequence[Setup], runs: int, seconds: float) -> list[common.Row]:
    """Medians of interleaved runs, in the order of setups; what was lost, repeated or out of order in any of them."""
    taken: dict[Setup, list[dict[str, Any]]] = {setup: [] for setup in setups}
    for _ in range(runs):
        for setup, results in taken.items():
            results.append(once(setup, seconds))
    return [row(setup, results) for setup, results in taken.items()]


def row(setup: Setup, results: Sequence[dict[str, Any]]) -> common.Row:
    made: common.Row = {"who": setup.name, "qos": setup.qos}
    for key in results[0]:
        values = [result[key] for result in results]
        if key in ("sent", "lost", "duplicates", "disordered"):
            made[key] = sum(values)
        elif key == "per_s":
            made |= {key: statistics.median(values), "per_s_min": min(values), "per_s_max": max(values)}
        elif key == "peak_rss_mib":
            made[key] = max(values)
        else:
            made[key] = statistics.median(values)
    made["lost_percent"] = 100 * int(str(made["lost"])) / int(str(made["sent"]))
    return made


def limits(rows: Sequence[common.Row]) -> list[common.Limit]:
    """What was promised of the rows that there are. A rate that a slow machine cannot give is measured by the floor."""
    of: dict[tuple[object, object], Any] = {(row["who"], row["qos"]): row for row in rows}
    peak_mb = max((1.048576 * _figure(row, "peak_rss_mib") for row in rows if _ours(row)), default=0.0)
    ours = [row for row in rows if _ours(row) and row["qos"] == 1]
    made = [
        common.Limit(
            "QoS 1: nothing lost, repeated or out of order",
            all(row[key] == 0 for row in ours for key in ("lost", "duplicates", "disordered")),
        ),
        common.Limit("at most 60 MB resident", peak_mb <= 60, speed=True),
    ]
    bare, floor = (_figure(of[name, 1], "per_s") for name in (BARE, FLOOR))

    def faster(name: str, least: float, words: str) -> None:
        if row := of.get((f"{AGENT} {name}", 1)):
            made.append(common.Limit(f"{name}: {words}", _figure(row, "per_s") >= least, speed=True))

    def cheaper(name: str, most: float) -> None:
        if row := of.get((f"{AGENT} {name}", 1)):
            met = _figure(row, "cpu_s_per_100k") <= most
            made.append(common.Limit(f"{name}: at most {most} s of CPU for 100,000", met, speed=True))

    faster("1 spill", max(1.5 * bare, 12_000), "12,000/s, and 1.5 times the buffered bare script")
    for durability in ("memory", "spill"):
        faster(f"auto {durability}", min(65_000, floor), "65,000/s, or as fast as the floor")
    faster("auto strict", min(50_000, 0.75 * floor), "50,000/s, or three quarters of the floor")
    cheaper("auto memory", 2.0)
    cheaper("auto strict", 3.0)
    return made


def _ours(row: common.Row) -> bool:
    return str(row["who"]).startswith(AGENT)


def _figure(row: common.Row, key: str) -> float:
    return float(str(row[key]))


def ratios(rows: Sequence[common.Row]) -> dict[str, float]:
    """Ours beside the others' of the same run; more is better (bench/guard.py)."""
    of = {(row["who"], row["qos"]): row for row in rows}
    made = {}
    for name, beside in (("1 spill", BARE), ("auto spill", BARE), ("auto spill", FLOOR), ("auto strict", BARE)):
        ours, theirs = of.get((f"{AGENT} {name}", 1)), of.get((beside, 1))
        if ours is None or theirs is None:
            continue
        made[f"flood, {name}: rate, to {beside}"] = _figure(ours, "per_s") / _figure(theirs, "per_s")
        made[f"flood, {name}: CPU, to {beside}"] = _figure(theirs, "cpu_s_per_100k") / _figure(ours, "cpu_s_per_100k")
    return made


def main(argv: list[str] | None = None) -> int:
    parser = common.parser(__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="how long the line is flooded")
    parser.add_argument(
        "--only", default="", metavar="WORD", help="those with it in their names, the bare script, the floor"
    )
    options = parser.parse_args(argv)
    runs, seconds = (3, 1.0) if options.quick else (options.runs, options.seconds)
    where = common.machine()
    setups = []
    for setup in QUICK if options.quick else ALL:
        if options.only not in setup.name and setup.who not in (BARE, FLOOR):
            continue
        if reason := missing(setup.who):
            print(f"flood: left out: {reason}")
        else:
            setups.append(setup)
    rows = measure(setups, runs, seconds)
    name = f"flood of one line, {seconds:g} s, {runs} runs"
    return common.show(name, rows, limits(rows), options, where, ratios(rows))


if __name__ == "__main__":
    raise SystemExit(main())
