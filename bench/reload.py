"""SIGHUP under load: what becomes of the readings of devices that a new configuration does not touch.

Four lines speak 300 times a second in all (``--rate``). Beside them one device comes, is changed, and goes, one of
these in each reload. Lateness is from the write to a line to the arrival at a subscriber of the broker. What was
written between a SIGHUP and 50 ms after the log has told that its reload is done stands in one row, everything else in
the other: a machine that is late by itself is late in both. Devices that come and go are silent: of a port that is
closed nobody reads.
"""

from __future__ import annotations

import signal
import threading
import time
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress

from bench import common

PORTS = 4
PROMISED = 0.050
"""Seconds after which a reading of an untouched device counts as late."""
AFTER = 0.050
"""Seconds after the end of a reload that still belong to it: its device opens its port and is announced."""
REST = 0.15
"""Seconds between two reloads."""


class Writer(threading.Thread):
    """Writes to the lines in turn, so that no two readings wait for each other; keeps when each number was written."""

    def __init__(self, lines: Sequence[common.Line], rate: float) -> None:
        super().__init__(daemon=True)
        self.lines = lines
        self.rate = rate
        self.at: list[list[float]] = [[] for _ in lines]
        """For each line: seconds of CLOCK_MONOTONIC before the write of its numbers 0, 1, 2 ..."""
        self.refused = 0
        self._ended = threading.Event()
        self.start()

    def run(self) -> None:
        begin = time.monotonic()
        turn = 0
        while not self._ended.is_set():
            common.sleep_until(begin + turn / self.rate)
            index = turn % len(self.lines)
            now = time.monotonic()
            if self.lines[index].write(common.body(len(self.at[index]))):
                self.at[index].append(now)
            else:
                self.refused += 1
            turn += 1

    def end(self) -> None:
        self._ended.set()
        self.join()


def outcome(turn: int) -> str:
    """What a reload of that number does to the one device that is touched."""
    return ("added", "changed", "removed")[turn % 3]


def reload_once(
    stage: common.Stage, child: common.Child, steady: Sequence[dict[str, object]], guest: common.Line, turn: int
) -> tuple[float, float]:
    """One change and its SIGHUP; when it began and ended. Raises TimeoutError if the log does not tell of it."""
    does = outcome(turn)
    scale = {"channels": {"temperature": {"scale": 2}}} if does == "changed" else {}
    stage.configure([*steady, *([] if does == "removed" else [common.serial_device("guest", guest, **scale)])])
    wanted = f"config.reloaded {does}=guest"
    before = child.log.read_text().count(wanted)
    began = time.monotonic()
    child.process.send_signal(signal.SIGHUP)
    common.wait_for(lambda: child.log.read_text().count(wanted) > before, 10, wanted)
    return began, time.monotonic()


def split(at: Sequence[float], spans: Sequence[tuple[float, float]]) -> list[bool]:
    """Of each moment: whether it lies in one of the spans or AFTER them; they are in order and apart."""
    begins = [begin for begin, _ in spans]
    return [bool((index := bisect_right(begins, moment)) and moment <= spans[index - 1][1] + AFTER) for moment in at]


def measure(reloads: int, rate: float) -> tuple[list[common.Row], list[common.Limit]]:
    with common.stage(quiet=True) as stage:
        recorder = stage.recorder("outstation/bench/#")
        lines = [stage.line(f"d{index}") for index in range(PORTS)]
        guest = stage.line("guest")
        steady = [common.serial_device(f"d{index}", line) for index, line in enumerate(lines)]
        topics = {f"/d{index}/telemetry": line for index, line in enumerate(lines)}
        child = stage.agent(steady)
        common.warm_up(recorder, topics, child)
        writer = Writer(lines, rate)
        time.sleep(1.0)
        spans = []
        for turn in range(reloads):
            spans.append(reload_once(stage, child, steady, guest, turn))
            time.sleep(REST)
        time.sleep(0.5)
        writer.end()
        due = sum(map(len, writer.at))
        with suppress(TimeoutError):  # what is missing after that is lost
            common.wait_for(lambda: sum(len(common.numbers(recorder.of(topic))) for topic in topics) >= due, 5, "all")
        status = child.end()
        verdict = common.Verdict(0, 0, 0, 0, 0)
        waited: dict[bool, list[float]] = {True: [], False: []}
        for topic, at in zip(topics, writer.at, strict=True):
            messages = recorder.of(topic)
            verdict += common.judge(len(at), common.numbers(messages))
            arrived = {n: m.at for m in reversed(messages) for n in common.numbers([m])}  # the first arrival of each
            for number, during in enumerate(split(at, spans)):
                if number in arrived:
                    waited[during].append(arrived[number] - at[number])
        connects = [m.payload for m in recorder.of("bench/availability")].count(b"online")
    took = [1000 * (end - begin) for begin, end in spans]
    rows: list[common.Row] = [
        {
            "written": name,
            "reloads": len(spans),
            **common.latencies(waited[during]),
            "late": sum(each > PROMISED for each in waited[during]),
            "lost": verdict.lost,
            "duplicates": verdict.duplicates,
            "disordered": verdict.disordered,
            "reload_p50_ms": common.quantile(took, 0.5),
            "reload_max_ms": max(took),
        }
        for during, name in ((True, "during a reload"), (False, "between"))
    ]
    late = sum(int(str(row["late"])) for row in rows)
    limits = [
        common.Limit(
            "nothing lost, doubled or out of order on untouched devices",
            not (verdict.lost or verdict.duplicates or verdict.disordered or writer.refused),
        ),
        common.Limit("nothing late by more than 50 ms on untouched devices", not late, speed=True),
        common.Limit("one connection all the time, and a clean end", connects == 1 and status == 0),
    ]
    return rows, limits


def main(argv: list[str] | None = None) -> int:
    parser = common.parser(__doc__)
    parser.add_argument("--reloads", type=int, default=100)
    parser.add_argument("--rate", type=float, default=300.0, help="readings a second, of all untouched devices")
    options = parser.parse_args(argv)
    where = common.machine()
    rows, limits = measure(6 if options.quick else options.reloads, options.rate)
    return common.show(f"reloads under {options.rate:g} readings/s", rows, limits, options, where)


if __name__ == "__main__":
    raise SystemExit(main())
