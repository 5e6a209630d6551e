"""Eight Modbus units on a bus, two of them dead: how well the live ones keep their interval, on a pty and over TCP."""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import sys
import threading
import time
from itertools import pairwise

from bench import common

UNITS = 8
DEAD = (3, 6)
DYING = (2, 5)
INTERVAL = 1.0
PROMISED = 0.020
"""Seconds by which a live unit's interval may differ from INTERVAL, at the 99th percentile."""


def bus(port: str, timeout: float) -> dict[str, object]:
    registers = [
        {"name": "number", "address": 0},
        {"name": "temperature", "address": 1, "type": "f32"},
        {"name": "setpoint", "address": 10},
    ]
    return {
        "name": "bus",
        "driver": "modbus",
        "port": port,
        "baudrate": 19200,
        "interval": INTERVAL,
        "answer_timeout": timeout,
        "unit": [
            {"name": f"u{n}", "address": n, **({"register": registers} if n == 1 else {"like": "u1"})}
            for n in range(1, UNITS + 1)
        ],
    }


def intervals(messages: list[common.Message], unit: int, begin: float, end: float) -> list[float]:
    """Seconds between two readings of a unit, by when a subscriber of the broker got them."""
    at = [
        message.at
        for message in messages
        if begin <= message.at <= end and f"u{unit}_number" in json.loads(message.payload)["fields"]
    ]
    return [later - earlier for earlier, later in pairwise(at)]


def serve(stage: common.Stage, kind: str) -> tuple[common.Child, str]:
    """The server at work, and the port that the agent is told."""
    if kind == "serial":
        where = str(stage.folder / "tty-modbus")
        port = where
    else:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            where = str(probe.getsockname()[1])
        port = f"tcp://127.0.0.1:{where}"
    words = [kind, where, "--dead", ",".join(map(str, DEAD)), "--dying", ",".join(map(str, DYING))]
    server = stage.run([sys.executable, common.PEERS / "modbus_server.py", *words], f"server-{kind}")
    common.wait_for(lambda: "ready" in server.log.read_text(), 20, "the server's start")
    return server, port


class Yardstick(threading.Thread):
    """Wakes as often as the bus does, and does nothing: how well this machine keeps any interval."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.off: list[float] = []
        self._ended = threading.Event()
        self.start()

    def run(self) -> None:
        begin, number, last = time.monotonic(), 0, None
        while not self._ended.is_set():
            number += 1
            common.sleep_until(begin + number * INTERVAL / UNITS)
            now = time.monotonic()
            if last is not None:
                self.off.append(abs(now - last - INTERVAL / UNITS))
            last = now

    def end(self) -> list[float]:
        self._ended.set()
        self.join()
        return self.off


def measure(kind: str, seconds: float, timeout: float) -> tuple[common.Row, int]:
    """One line of the table: two dead from the start; then two more die, and it is looked at what that costs."""
    with common.stage() as stage:
        recorder = stage.recorder("outstation/bench/bus/telemetry")
        server, port = serve(stage, kind)
        child = stage.agent([bus(port, timeout)])
        live = [n for n in range(1, UNITS + 1) if n not in DEAD]
        common.wait_for(
            lambda: all(intervals(list(recorder.messages), n, 0, time.monotonic()) for n in live), 20, "two rounds"
        )
        time.sleep(3 * INTERVAL)  # until the dead ones are known as dead
        begin = time.monotonic()
        cpu = child.cpu()
        yardstick = Yardstick()
        common.sleep_until(begin + seconds)
        died = time.monotonic()
        machine = yardstick.end()
        cpu = (child.cpu() - cpu) / (died - begin)
        subprocess.run(["kill", "-USR1", str(server.pid)], check=True)
        common.sleep_until(died + max(10.0, seconds / 3))
        messages = list(recorder.messages)
        status = child.end()
    off = [abs(each - INTERVAL) for n in live for each in intervals(messages, n, begin, died)]
    rest = [n for n in live if n not in DYING]
    after = [abs(each - INTERVAL) for n in rest for each in intervals(messages, n, died, time.monotonic())]
    late = [each for each in after if each > PROMISED]
    return {
        "bus": kind,
        "time_out_ms": 1000 * timeout,
        "intervals": len(off),
        "off_p50_ms": 1000 * statistics.median(off),
        "off_p99_ms": 1000 * common.quantile(off, 0.99),
        "off_max_ms": 1000 * max(off),
        "machine_off_p99_ms": 1000 * common.quantile(machine, 0.99),
        "missed": sum(round(each) for each in off),
        "when_two_more_die_max_ms": 1000 * max(after),
        "intervals_off_then": len(late),
        "cpu_percent": 100 * cpu,
    }, status


def main(argv: list[str] | None = None) -> int:
    parser = common.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="how long each bus is looked at")
    options = parser.parse_args(argv)
    seconds = 10.0 if options.quick else options.seconds
    where = common.machine()
    rows: list[common.Row] = []
    statuses = []
    for kind in ("serial", "tcp"):
        row, status = measure(kind, seconds, 0.3)
        rows.append(row)
        statuses.append(status)
    worst = max(float(str(row["off_p99_ms"])) for row in rows)
    dying = max(float(str(row["when_two_more_die_max_ms"])) for row in rows)
    limits = [
        common.Limit("live units keep their interval within 20 ms (p99)", worst <= 1000 * PROMISED, speed=True),
        common.Limit("no reading of a live unit is missed", not any(row["missed"] for row in rows)),
        common.Limit("units that die delay the others by one time-out each, once", dying <= 2 * 300 + 20, speed=True),
        common.Limit("clean end", not any(statuses)),
    ]
    return common.show("Modbus: 8 units, 2 dead", rows, limits, options, where)


if __name__ == "__main__":
    raise SystemExit(main())
