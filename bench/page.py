"""What a crowd at the status page does to readings: 200 connections that never finish a request, and 1,000 requests a
second.

Two agents, one with the page and one without, each with a line that is asked in turn, so that both see the same
machine: first with nobody at the page, then with two browsers' streams, then with the crowd as well. Memory is that of
each at the end of a part.
"""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import time
from contextlib import ExitStack

from bench import common

SLOW = 200
RATE = 1000.0
STREAMS = 2


def measure(
    subscriber: common.Subscriber, lines: dict[str, common.Line], seconds: float, rate: float
) -> dict[str, list[float]]:
    """Seconds from write to arrival, by agent; one reading is on its way at a time."""
    taken: dict[str, list[float]] = {who: [] for who in lines}
    period = 1 / rate / len(lines)
    rng = random.Random(1)
    begin = time.monotonic()
    number = 0
    while time.monotonic() < begin + seconds:
        for who, line in lines.items():
            # A random phase: a fixed one would meet the same instant of the page's timers each time.
            common.sleep_until(begin + (number + rng.random() / 2) * period)
            number += 1
            sent = time.monotonic()
            assert line.write(common.body(number))
            topic = f"outstation/{who}/live/telemetry"
            while not (found := [m for m in subscriber.poll(sent + 5 - time.monotonic()) if m.topic == topic]):
                assert time.monotonic() < sent + 5, f"line {number} of {who} did not arrive"
            taken[who].append(found[0].at - sent)
    return taken


def megabytes(child: common.Child) -> float:
    return child.rss() * 1.048576


def main(argv: list[str] | None = None) -> int:
    parser = common.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each of the three parts")
    parser.add_argument("--rate", type=float, default=50.0, help="lines a second on each line")
    options = parser.parse_args(argv)
    seconds = 5.0 if options.quick else options.seconds
    where = common.machine()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with common.stage(quiet=True) as stage, ExitStack() as sockets:
        recorder = stage.recorder("outstation/+/live/telemetry")
        lines = {"off": stage.line("live", "off"), "on": stage.line("live", "on")}
        tables: dict[str, dict[str, object]] = {"page": {"listen": f"127.0.0.1:{port}"}}
        child = {
            "off": stage.agent([common.serial_device("live", lines["off"])], agent="off"),
            "on": stage.agent([common.serial_device("live", lines["on"])], agent="on", **tables),
        }
        for who, one in child.items():
            common.warm_up(recorder, {f"/{who}/live/telemetry": lines[who]}, one)
        recorder.close()
        subscriber = common.Subscriber(stage.broker.port, "outstation/+/live/telemetry")
        measure(subscriber, lines, 1.0, options.rate)  # caches, the allocator, TCP's window
        rows: list[common.Row] = []

        def part(name: str) -> None:
            cpu = {who: one.cpu() for who, one in child.items()}
            taken = measure(subscriber, lines, seconds, options.rate)
            for who, one in child.items():
                used = (one.cpu() - cpu[who]) / seconds * 100
                figures = common.latencies(taken[who])
                row: common.Row = {"page": who, "there": name, **figures, "cpu_percent": used, "rss_mb": megabytes(one)}
                rows.append(row)

        part("nobody")
        for _ in range(STREAMS):
            stream = sockets.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            stream.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            reader = subprocess.Popen(
                [sys.executable, "-c", "import sys\nwhile sys.stdin.buffer.read1(): pass"], stdin=stream
            )
            sockets.callback(reader.wait)
            sockets.callback(reader.kill)
        part(f"{STREAMS} browsers")
        crowd = subprocess.Popen(
            [sys.executable, "-m", "bench.crowd", *map(str, (port, seconds + 2, SLOW, RATE))],
            stdout=subprocess.PIPE,
            cwd=common.ROOT,
        )
        sockets.callback(crowd.kill)
        common.sleep_until(time.monotonic() + 1)
        part("browsers and the crowd")
        worst = float(str(rows[-1]["p99_ms"]))
        siege = json.loads(crowd.communicate(timeout=60)[0])
        subscriber.close()
        print("the crowd: " + ", ".join(f"{key} {value}" for key, value in siege.items()))
        limits = [
            common.Limit("p99 of readings beside the crowd under 10 ms", worst < 10, speed=True),
            common.Limit("1,000 requests/s answered", siege["requests_per_s"] > 0.98 * RATE, speed=True),
            common.Limit("every request answered, with 200 or 404", set(siege["statuses"]) == {"200", "404"}),
            common.Limit("the slow ones were let go", siege["slow_ended"] > SLOW / 2 or options.quick),
            common.Limit("at most 52 MB resident with the page", megabytes(child["on"]) <= 52, speed=True),
        ]
        return common.show(f"status page, {seconds:g} s each", rows, limits, options, where)


if __name__ == "__main__":
    raise SystemExit(main())
