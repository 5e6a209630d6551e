"""From exec to the first reading in the broker, beside a bare pyserial+paho script, in turns. A line every 2 ms."""

from __future__ import annotations

import statistics
import time

from bench import common


def once(stage: common.Stage, who: str, subscriber: common.Subscriber) -> float:
    line = stage.line("live")
    topic = f"outstation/{who}/live/telemetry"
    while subscriber.poll(0.2):
        pass
    child = stage.agent([common.serial_device("live", line)], agent=who) if who == "agent" else stage.bare([line])
    deadline = child.started + 20
    number = 0
    arrived = None
    while arrived is None:
        line.write(common.body(number))
        number += 1
        arrived = next((m.at for m in subscriber.poll(0.002) if m.topic == topic), None)
        if time.monotonic() > deadline:
            raise TimeoutError(f"no reading from {who}")
    child.end()
    line.unplug()
    stage.lines.remove(line)
    return arrived - child.started


def main(argv: list[str] | None = None) -> int:
    parser = common.parser(__doc__)
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args(argv)
    where = common.machine()
    taken: dict[str, list[float]] = {"agent": [], "bare": []}
    with common.stage() as stage:
        subscriber = common.Subscriber(stage.broker.port, "outstation/+/+/telemetry")
        for run in range((3 if options.quick else options.runs) + 1):
            for who, seconds in taken.items():
                value = once(stage, who, subscriber)
                if run:  # the first one writes the compiled modules
                    seconds.append(value)
        subscriber.close()
    rows: list[common.Row] = [
        {
            "who": who,
            "runs": len(values),
            "median_s": statistics.median(values),
            "min_s": min(values),
            "max_s": max(values),
        }
        for who, values in taken.items()
    ]
    limits = [
        common.Limit(
            "first reading within 0.25 s of exec (median)", statistics.median(taken["agent"]) <= 0.25, speed=True
        )
    ]
    ratios = {"cold start, to bare": statistics.median(taken["bare"]) / statistics.median(taken["agent"])}
    return common.show("cold start", rows, limits, options, where, ratios)


if __name__ == "__main__":
    raise SystemExit(main())
