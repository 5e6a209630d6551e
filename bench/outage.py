"""The broker is killed (SIGKILL) for 20 s under 100 lines/s, then comes back: what is lost, what comes out of order,
how soon we are back.

The judge is a subscriber with a session that the broker has on disk before it is killed, so it misses nothing by
itself.
"""

from __future__ import annotations

import time

from bench import common

PORTS = 4
RATE = 100.0


def write(lines: list[common.Line], number: int, begin: float, seconds: float) -> int:
    """Write to lines in turn, RATE in all, for that long, from that number on (of each line); the next number."""
    step = PORTS / RATE
    for turn in range(round(seconds / step)):
        for place, line in enumerate(lines):
            common.sleep_until(begin + turn * step + place / RATE)
            assert line.write(common.body(number))
        number += 1
    return number


def main(argv: list[str] | None = None) -> int:
    parser = common.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long the broker is away")
    options = parser.parse_args(argv)
    away = 3.0 if options.quick else options.seconds
    where = common.machine()
    with common.stage(durable=True) as stage:
        recorder = stage.recorder("outstation/+/+/telemetry", session="judge")
        names = [f"d{index}" for index in range(PORTS)]
        lines = [stage.line(name) for name in names]
        topics = {f"/{name}/telemetry": line for name, line in zip(names, lines, strict=True)}
        child = stage.agent([common.serial_device(name, line) for name, line in zip(names, lines, strict=True)])
        common.warm_up(recorder, topics, child)
        stage.broker.save()

        number = write(lines, 0, time.monotonic(), 3)
        killed = time.monotonic()
        stage.broker.kill()
        rss_before = child.rss()
        number = write(lines, number, time.monotonic(), away)
        rss_after = child.rss()
        known = len(recorder.messages)
        stage.broker.start()
        returned = time.monotonic()
        number = write(lines, number, time.monotonic(), 5)
        common.wait_for(
            lambda: all(len(set(common.numbers(recorder.of(topic)))) >= number for topic in topics),
            30,
            "the backlog's arrival",
        )
        first = recorder.messages[known].at
        verdict = common.Verdict(0, 0, 0, 0, 0)
        for topic in topics:
            verdict += common.judge(number, common.numbers(recorder.of(topic)))
        status = child.end()
        rows: list[common.Row] = [
            {
                "away_s": returned - killed,
                "back_after_s": first - returned,
                **vars(verdict),
                "rss_growth_mb": rss_after - rss_before,
            }
        ]
        limits = [
            common.Limit("nothing lost, first arrivals in order", verdict.lost == verdict.disordered == 0),
            common.Limit("back within 2 s of the broker's return", first - returned <= 2.0, speed=True),
            common.Limit("clean end", status == 0),
        ]
        return common.show("broker outage under 100 lines/s", rows, limits, options, where)


if __name__ == "__main__":
    raise SystemExit(main())
