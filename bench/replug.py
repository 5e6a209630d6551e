"""A serial device is unplugged and comes back: how soon its readings do, and what waiting for it costs."""

from __future__ import annotations

import statistics
import time

from bench import common


def main(argv: list[str] | None = None) -> int:
    parser = common.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--away", type=float, default=3.0, help="seconds between unplugging and plugging in")
    options = parser.parse_args(argv)
    rounds = 2 if options.quick else options.rounds
    where = common.machine()
    back: list[float] = []
    waiting: list[float] = []
    with common.stage() as stage:
        recorder = stage.recorder("outstation/bench/live/telemetry")
        line = stage.line("live")
        child = stage.agent([common.serial_device("live", line)])
        common.warm_up(recorder, {"/live/telemetry": line}, child)
        for number in range(rounds):
            line.unplug()
            cpu, begin = child.cpu(), time.monotonic()
            common.sleep_until(begin + options.away)
            waiting.append((child.cpu() - cpu) / (time.monotonic() - begin))
            known = len(recorder.messages)
            line.plug()
            plugged = time.monotonic()
            while len(recorder.messages) == known:
                line.write(common.body(number))
                time.sleep(0.005)
                if time.monotonic() > plugged + 30:
                    raise TimeoutError("the device came back and nobody read it")
            back.append(recorder.messages[known].at - plugged)
            time.sleep(0.5)
        status = child.end()
    rows: list[common.Row] = [
        {
            "rounds": rounds,
            "back_median_s": statistics.median(back),
            "back_max_s": max(back),
            "cpu_percent_while_away": 100 * max(waiting),
        }
    ]
    limits = [
        common.Limit("readings within 0.5 s of the device's return, every time", max(back) <= 0.5, speed=True),
        common.Limit("at most 1 % of a core while it is away", max(waiting) <= 0.01, speed=True),
        common.Limit("clean end", status == 0),
    ]
    return common.show("unplug and replug", rows, limits, options, where)


if __name__ == "__main__":
    raise SystemExit(main())
