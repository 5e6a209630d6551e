"""SIGTERM under load (4 lines at 250 lines/s each): exit status 0, `offline` from us and not from the Will, and every
line delivered that was read before the signal.

A line counts as read if it was written 50 ms before the signal; of those written later the agent may have read some,
but never one without all that came before it on its line. Who said `offline` is told by the broker's log.
"""

from __future__ import annotations

import signal
import threading
import time

from bench import common

PORTS = 4
RATE = 250.0
GRACE = 0.05
"""Seconds: what is written in the last moment before the signal may still lie in the kernel."""


class Writer(threading.Thread):
    """Writes to all lines at once until told to end; keeps when each number was written."""

    def __init__(self, lines: list[common.Line]) -> None:
        super().__init__(daemon=True)
        self.lines = lines
        self.at: list[float] = []
        self.ended = threading.Event()
        self.start()

    def run(self) -> None:
        begin = time.monotonic()
        number = 0
        while not self.ended.is_set():
            common.sleep_until(begin + number / RATE)
            taken = [line.write(common.body(number)) for line in self.lines]
            if not all(taken):
                return  # nobody reads any more: the agent has stopped
            self.at.append(time.monotonic())
            number += 1


def once(seconds: float) -> dict[str, object]:
    with common.stage() as stage:
        recorder = stage.recorder("outstation/#")
        names = [f"d{index}" for index in range(PORTS)]
        lines = [stage.line(name) for name in names]
        topics = {f"/{name}/telemetry": line for name, line in zip(names, lines, strict=True)}
        child = stage.agent([common.serial_device(name, line) for name, line in zip(names, lines, strict=True)])
        common.warm_up(recorder, topics, child)
        writer = Writer(lines)
        time.sleep(seconds)
        signalled = time.monotonic()
        status = child.end(signal.SIGTERM)
        took = time.monotonic() - signalled
        writer.ended.set()
        writer.join()
        common.wait_for(lambda: recorder.of("bench/availability")[-1].payload == b"offline", 5, "offline")
        time.sleep(0.1)
        due = sum(at < signalled - GRACE for at in writer.at)
        lost = gaps = 0
        for topic in topics:
            got = common.numbers(recorder.of(topic))
            lost += len(set(range(due)) - set(got))
            gaps += got != list(range(len(got)))
        log = stage.broker.log.read_text().splitlines()
        by_us = [
            line
            for line in log
            if "Received PUBLISH" in line and "'outstation/bench/availability', ... (7 bytes)" in line
        ]
        client = by_us[-1].split(" from ")[1].split()[0] if by_us else "nobody"
        clean = any(f"Received DISCONNECT from {client}" in line for line in log)
        offline = sum(m.payload == b"offline" for m in recorder.of("bench/availability"))
        return {
            "status": status,
            "stop_s": took,
            "due": due * PORTS,
            "lost": lost,
            "lines_with_gaps": gaps,
            "offline_by_us": len(by_us),
            "offline_seen": offline,
            "clean_disconnect": clean,
        }


def main(argv: list[str] | None = None) -> int:
    parser = common.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args(argv)
    where = common.machine()
    rows: list[common.Row] = [once(2.0) for _ in range(2 if options.quick else options.rounds)]
    limits = [
        common.Limit("exit status 0 every time", all(row["status"] == 0 for row in rows)),
        common.Limit("within stop_timeout (10 s)", all(float(str(row["stop_s"])) <= 10 for row in rows), speed=True),
        common.Limit(
            "every line read before the signal delivered, no gap after it",
            not any(row["lost"] or row["lines_with_gaps"] for row in rows),
        ),
        common.Limit(
            "`offline` once, by us, then DISCONNECT",
            all(row["offline_by_us"] == row["offline_seen"] == 1 and row["clean_disconnect"] for row in rows),
        ),
    ]
    return common.show(f"stop under {RATE * PORTS:g} lines/s", rows, limits, options, where)


if __name__ == "__main__":
    raise SystemExit(main())
