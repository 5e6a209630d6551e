"""32 serial ports at 115200 baud, all full of lines at once: what is lost, and what of the processor one agent needs.

Each port gets 11,520 bytes a second (8N1: ten bits a byte), in pieces every 10 ms, as UARTs with a FIFO and USB
adapters hand them on. A pty would hold a writer off where a UART overruns: a line that finds no room in the kernel's
4 KiB, because its reader is 0.35 s behind, counts as overrun, though it is written later.
"""

from __future__ import annotations

import time

from bench import common

BAUD = 115_200
BYTES = BAUD / 10
TICK = 0.010


def once(ports: int, seconds: float, batch: object) -> common.Row:
    with common.stage(quiet=True) as stage:
        recorder = stage.recorder("outstation/bench/+/telemetry")
        lines = {f"p{index:02}": stage.line(f"p{index:02}") for index in range(ports)}
        devices = [common.serial_device(name, line, baudrate=BAUD) for name, line in lines.items()]
        child = stage.agent(devices, mqtt={"batch": batch})
        common.warm_up(recorder, {f"/{name}/telemetry": line for name, line in lines.items()}, child, timeout=60)
        sent = dict.fromkeys(lines, 0)
        wrote = dict.fromkeys(lines, 0)
        overruns = 0
        cpu, begin = child.cpu(), time.monotonic()
        tick = 0
        while (now := time.monotonic() - begin) < seconds:
            for name, line in lines.items():
                while wrote[name] < now * BYTES:
                    text = common.body(sent[name])
                    if not line.write(text):
                        overruns += 1
                        break
                    sent[name] += 1
                    wrote[name] += len(text) + 1
            tick += 1
            common.sleep_until(begin + tick * TICK)
        took, used = time.monotonic() - begin, child.cpu() - cpu
        total = sum(sent.values())
        common.wait_for(lambda: _arrived(recorder) >= total, 30, "the last reading's arrival")
        verdict = common.Verdict(0, 0, 0, 0, 0)
        for name in lines:
            verdict += common.judge(sent[name], common.numbers(recorder.of(f"/{name}/telemetry")))
        row: common.Row = {
            "ports": ports,
            "batch": batch,
            "bytes_per_s_and_port": sum(wrote.values()) / took / ports,
            "lines_per_s": total / took,
            "overruns": overruns,
            "lost": verdict.lost,
            "duplicates": verdict.duplicates,
            "disordered": verdict.disordered,
            "cpu_percent": 100 * used / took,
            "peak_rss_mib": child.peak_rss(),
        }
        row["status"] = child.end()
        return row


def _arrived(recorder: common.Recorder) -> int:
    """Only bodies that are arrays need a look; counting quotes of "seq" is as good, and 20 times as fast."""
    return sum(message.payload.count(b'"seq":') - message.payload.count(b'"n":-1,') for message in recorder.messages)


def main(argv: list[str] | None = None) -> int:
    parser = common.parser(__doc__)
    parser.add_argument("--ports", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args(argv)
    seconds = 3.0 if options.quick else options.seconds
    where = common.machine()
    rows = [once(options.ports, seconds, batch) for batch in (1, "auto")]
    bad = [key for row in rows for key in ("lost", "duplicates", "disordered", "status") if row[key]]
    full = all(float(str(row["bytes_per_s_and_port"])) >= 0.99 * BYTES for row in rows)
    limits = [
        common.Limit("nothing lost, repeated or out of order; clean ends", not bad),
        common.Limit(
            "no port ever waited for its reader (overruns)", not any(row["overruns"] for row in rows), speed=True
        ),
        common.Limit("the lines were full", full, speed=True),
    ]
    name = f"{options.ports} ports at {BAUD} baud for {seconds:g} s, one process"
    return common.show(name, rows, limits, options, where)


if __name__ == "__main__":
    raise SystemExit(main())
