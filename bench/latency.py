"""From the write to a serial line to the subscriber of the broker: how long a reading takes, beside a bare
pyserial+paho script.

Both run at once, each on a line of its own, asked in turn, so that both see the same machine. One reading is on its
way at a time: what is measured is latency, not a queue. A third agent has a live line in bad company: a silent one,
one that is for ever in the middle of a line, and one that is missing.
"""

from __future__ import annotations

import os
import random
import time

from bench import common


def measure(
    subscriber: common.Subscriber, lines: dict[str, common.Line], samples: int, rate: float
) -> dict[str, list[float]]:
    """Seconds from write to arrival, by line; each is written to at rate lines/s until there are samples of it."""
    taken: dict[str, list[float]] = {who: [] for who in lines}
    period = 1 / rate
    share = period / len(lines)
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

        folder = stage.folder / "company"
        folder.mkdir()
        silent, half = stage.line("silent"), stage.line("half")
        live = common.Line(folder / "tty-live")
        stage.lines.append(live)
        lines["company"] = live
        child["company"] = stage.agent(
            [
                common.serial_device("silent", silent),
                common.serial_device("half", half),
                common.serial_device("missing", stage.folder / "tty-missing"),
                common.serial_device("live", live),
            ],
            agent="company",
        )

        folder = stage.folder / "bare"
        folder.mkdir()
        lines["bare"] = common.Line(folder / "tty-live")
        stage.lines.append(lines["bare"])
        child["bare"] = stage.bare([lines["bare"]])

        for who, one in child.items():
            common.warm_up(recorder, {f"/{who}/live/telemetry": lines[who]}, one)
        recorder.close()
        assert half.write('{"n": 1, "temperature": 2')  # with its newline: one fault; then half a line for good
        os.write(half.master, b'{"n": 2, "temper')
        subscriber = common.Subscriber(stage.broker.port, "outstation/+/live/telemetry")
        measure(subscriber, lines, 20, rate)  # caches, the allocator, TCP's window
        taken = measure(subscriber, lines, samples, rate)
        subscriber.close()
        figures = {who: common.latencies(values) for who, values in taken.items()}
        rows: list[common.Row] = [{"who": who, **figures[who]} for who in ("agent", "bare", "company")]
        ours, bare = figures["agent"], figures["bare"]
        limits = [
            common.Limit(
                "p50 at most 0.7 ms, or 1.5 times the bare script's",
                ours["p50_ms"] <= max(0.7, 1.5 * bare["p50_ms"]),
                speed=True,
            ),
            common.Limit(
                "p99 at most 2 ms, or 1.5 times the bare script's",
                ours["p99_ms"] <= max(2.0, 1.5 * bare["p99_ms"]),
                speed=True,
            ),
            common.Limit(
                "p99 beside a silent, a half-line and a missing device under 3 ms, or 1.5 times the bare script's",
                figures["company"]["p99_ms"] < max(3.0, 1.5 * bare["p99_ms"]),
                speed=True,
            ),
        ]
        return common.show(f"latency, {rate:g} lines/s on each line", rows, limits, options, where)


if __name__ == "__main__":
    raise SystemExit(main())
