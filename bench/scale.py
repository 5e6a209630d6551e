"""What the number of devices costs, and of timers: the same work in all, shared by 1, 10, 100, 1,000 of them, and by
10,000 timers.

Devices: an agent with so many serial lines, RATE lines a second over all of them. Timers: an event manager with so many
periodic timers, TIMER_RATE calls a second in all. What is linear costs the same whoever brings the work, plus so much
memory for each; a knee would show as more CPU. One after another, then all again: medians of the rounds.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from typing import Any

from bench import common

DEVICES = (1, 10, 100, 1000)
TIMERS = (1, 10, 100, 1000, 10_000)
RATE = 200.0
"""Lines a second in all: few enough that each is read by a wake-up of its own, whatever the number of lines."""
TIMER_RATE = 2000.0
"""Calls a second in all."""


def devices(count: int, seconds: float) -> dict[str, Any]:
    """An agent with ``count`` lines, of which each in its turn is written to."""
    with common.stage(quiet=True) as stage:
        recorder = stage.recorder("outstation/bench/+/telemetry")
        names = [f"d{index}" for index in range(count)]
        lines = [stage.line(name) for name in names]
        topics = {f"/{name}/telemetry": line for name, line in zip(names, lines, strict=True)}
        child = stage.agent([common.serial_device(name, line) for name, line in zip(names, lines, strict=True)])
        common.warm_up(recorder, topics, child, timeout=120)
        started = child.cpu()
        ready = time.monotonic() - child.started
        before = len(recorder.messages)
        sent = round(seconds * RATE)
        begin = time.monotonic()
        for number in range(sent):
            common.sleep_until(begin + number / RATE)
            assert lines[number % count].write(common.body(number))
        common.sleep_until(begin + seconds)
        used = child.cpu() - started
        common.wait_for(lambda: len(recorder.messages) - before >= sent, 5, "the last line's arrival")
        found = common.numbers(recorder.messages[before:])
        return {
            "ready_s": ready,
            "cpu_s_start": started,
            "cpu_us_each": used / sent * 1e6,
            "rss_mib": child.rss(),
            "lost": sent - len(set(found)),
        }


_TIMERS = """
import json, resource, sys, time
from agent.events import EventManager
count, rate, seconds = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
with EventManager() as manager:
    period = count / rate
    timers = [
        manager.create_timer_event(period, int, first_after=index / rate, name=f"t{index}") for index in range(count)
    ]
    manager.create_timer_event(seconds, manager.terminate, repeat=False)
    begin = time.process_time()
    manager.loop()
    used = time.process_time() - begin
    fired = sum(timer.fired for timer in timers)
    print(json.dumps({"cpu_us_each": used / fired * 1e6, "fired": fired,
                      "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def timers(count: int, seconds: float) -> dict[str, Any]:
    """An event manager, alone in a process, with ``count`` periodic timers at even distances."""
    command = [sys.executable, "-c", _TIMERS, str(count), str(TIMER_RATE), str(seconds)]
    result = subprocess.run(command, cwd=common.ROOT, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def _even(rows: list[common.Row], what: str) -> bool:
    """Whether no step to ten times as many costs half as much again."""
    costs = [float(str(row["cpu_us_each"])) for row in rows if row["what"] == what]
    return all(more <= 1.5 * fewer for fewer, more in pairwise(costs))


def main(argv: list[str] | None = None) -> int:
    parser = common.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args(argv)
    rounds, seconds = (1, 3.0) if options.quick else (options.rounds, options.seconds)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (hard, hard)
    )  # a pty takes two descriptors of ours, and one of the agent
    where = common.machine()
    taken: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for _ in range(rounds):
        for count in DEVICES[:3] if options.quick else DEVICES:
            taken.setdefault(("devices", count), []).append(devices(count, seconds))
        for count in TIMERS:
            taken.setdefault(("timers", count), []).append(timers(count, seconds / 4))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    rows: list[common.Row] = []
    for (what, count), results in taken.items():
        medians = {key: statistics.median([result[key] for result in results]) for key in results[0]}
        rows.append({"what": what, "count": count, **medians})

    def figure(what: str, count: int, key: str) -> float:
        return float(statistics.median([result[key] for result in taken[what, count]]))

    most = max(count for what, count in taken if what == "devices")
    each = (figure("devices", most, "rss_mib") - figure("devices", 10, "rss_mib")) / (most - 10) * 1024
    limits = [
        common.Limit(
            "nothing lost", all(result.get("lost", 0) == 0 for results in taken.values() for result in results)
        ),
        *(
            common.Limit(f"no knee: ten times the {what} cost at most 1.5 times the CPU", _even(rows, what), speed=True)
            for what in ("devices", "timers")
        ),
        common.Limit(f"a device takes at most 48 KiB ({each:.1f})", each <= 48, speed=True),
    ]
    ratios = {
        f"scale: CPU with 1 device, to {most:,}": figure("devices", 1, "cpu_us_each")
        / figure("devices", most, "cpu_us_each"),
        "scale: CPU with 10 timers, to 10,000": figure("timers", 10, "cpu_us_each")
        / figure("timers", 10_000, "cpu_us_each"),
    }
    title = f"scale, {RATE:g} lines/s and {TIMER_RATE:g} timers/s in all"
    return common.show(title, rows, limits, options, where, ratios)


if __name__ == "__main__":
    raise SystemExit(main())
