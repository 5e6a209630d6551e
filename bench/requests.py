"""1,000 requests a second over MQTT: what the readings of the agent that is asked feel of it.

Two agents at one broker, each with a line that is written to 50 times a second: one answers requests, the other has
none enabled. First nobody asks, then a process of its own sends ``--rate`` pings a second to both. Latency is from the
write to a line to the arrival at a subscriber; the agent that cannot be asked tells what the broker and the machine
add meanwhile.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time

from bench import common

AGENTS = ("asked", "deaf")
EVERY = 0.02
BURST = 10


def flood(port: int, rate: float) -> None:
    """Send pings at QoS 0 to both agents, in bursts of ten, until killed."""
    with socket.create_connection(("127.0.0.1", port)) as broker:
        broker.sendall(common._packet(0x10, common._string("MQTT") + bytes([4, 2, 0, 0]) + common._string("")))
        begin, number = time.monotonic(), 0
        while True:
            common.sleep_until(begin + number / rate)
            asked = b""
            for _ in range(BURST):
                number += 1
                body = b'{"transaction":%d}' % number
                for agent in AGENTS:
                    asked += common._packet(0x30, common._string(f"outstation/{agent}/request/ping") + body)
            broker.sendall(asked)


def measure(stage: common.Stage, lines: dict[str, common.Line], seconds: float, first: int) -> dict[str, list[float]]:
    """Seconds from the write to the arrival, by agent. first: the number of the first line."""
    recorder = stage.recorders[0]
    written: list[float] = []
    begin = time.monotonic()
    for index in range(int(seconds / EVERY)):
        common.sleep_until(begin + index * EVERY)
        written.append(time.monotonic())
        for line in lines.values():
            line.write(common.body(first + index))
    last = first + len(written) - 1
    found: dict[str, list[float]] = {}
    for agent in lines:
        ending = f"{agent}/{agent}/telemetry"
        common.wait_for(lambda ending=ending: last in common.numbers(recorder.of(ending)[-3:]), 10, "the last reading")
        found[agent] = [
            message.at - written[number - first]
            for message in recorder.of(ending)
            for number in common.numbers([message])
            if first <= number <= last
        ]
    return found


def main(argv: list[str] | None = None) -> int:
    parser = common.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=1000.0)
    options = parser.parse_args(argv)
    where = common.machine()
    seconds = 2.0 if options.quick else options.seconds
    rows: list[common.Row] = []
    with common.stage(quiet=True) as stage:
        recorder = stage.recorder("outstation/+/+/#")
        lines = {agent: stage.line(agent) for agent in AGENTS}
        children = {}
        for agent in AGENTS:
            tables = {"requests": {"enable": ["ping"]}} if agent == "asked" else {}
            children[agent] = stage.agent(
                [common.serial_device(agent, lines[agent])], agent=agent, status={"interval": "0.5s"}, **tables
            )
            common.warm_up(recorder, {f"{agent}/{agent}/telemetry": lines[agent]}, children[agent])
        lost = 0
        for turn, company in enumerate(("nobody", f"{options.rate:g} requests/s")):
            command = [
                sys.executable,
                "-c",
                f"from bench.requests import flood; flood({stage.broker.port}, {options.rate})",
            ]
            asking = subprocess.Popen(command, cwd=common.ROOT) if turn else None
            try:
                before = {agent: child.cpu() for agent, child in children.items()}
                begin = time.monotonic()
                found = measure(stage, lines, seconds, 1_000_000 * (turn + 1))
                took = time.monotonic() - begin
            finally:
                if asking is not None:
                    asking.kill()
                    asking.wait()
            for agent, late in found.items():
                lost += int(seconds / EVERY) - len(late)
                cpu = (children[agent].cpu() - before[agent]) / took * 100
                rows.append({"agent": agent, "who asks": company, **common.latencies(late), "cpu_percent": cpu})
        status = recorder.of("asked/status")[-1]
        counts = json.loads(status.payload)["requests"]
    came = counts["done"] + counts["limited"]
    limits = [
        common.Limit("no reading lost", lost == 0),
        common.Limit("requests over the rate refused", counts["limited"] > counts["done"] > 0),
        common.Limit("p99 under 10 ms while they come", float(str(rows[2]["p99_ms"])) < 10, speed=True),
    ]
    return common.show(f"{came} requests, {counts['done']} carried out", rows, limits, options, where)


if __name__ == "__main__":
    raise SystemExit(main())
