"""What the agent costs when little happens: ten serial lines of one line a second, and the host every ten seconds, for
a minute.

Beside a bare pyserial+paho script that does the same, at the same time, against the same broker. CPU is that of the
whole process over the measured minute, by its CPU clock; what the start took stands in a column of its own.
"""

from __future__ import annotations

import time

from bench import common

PORTS = 10


def main(argv: list[str] | None = None) -> int:
    parser = common.parser(__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args(argv)
    seconds = 10 if options.quick else options.seconds
    where = common.machine()
    with common.stage() as stage:
        recorder = stage.recorder("outstation/+/+/telemetry")
        names = [f"d{index}" for index in range(PORTS)]
        lines = {who: [stage.line(f"{who}-{name}") for name in names] for who in ("agent", "bare")}
        devices = [common.serial_device(line.link.name.removeprefix("tty-"), line) for line in lines["agent"]]
        devices.append({"name": "host", "driver": "host", "interval": 10})
        children = {
            "agent": stage.agent(devices, agent="agent"),
            "bare": stage.bare(lines["bare"], options=["--host", "10"]),
        }
        topics = {who: {f"/{who}/{line.link.name[4:]}/telemetry": line for line in lines[who]} for who in children}
        for who, child in children.items():
            common.warm_up(recorder, topics[who], child)
        started = {who: child.cpu() for who, child in children.items()}
        switches = {who: child.switches() for who, child in children.items()}
        written = {who: child.written() for who, child in children.items()}
        begin = time.monotonic()
        for turn in range(seconds):
            for index in range(PORTS):  # spread over the second, as clocks that nobody has set to each other
                common.sleep_until(begin + turn + index / PORTS)
                for who in children:
                    assert lines[who][index].write(common.body(turn))
        common.sleep_until(begin + seconds)
        used = {who: child.cpu() - started[who] for who, child in children.items()}
        woken = {who: child.switches() - switches[who] for who, child in children.items()}
        common.wait_for(
            lambda: all(
                len(common.numbers(recorder.of(topic))) >= seconds for who in children for topic in topics[who]
            ),
            5,
            "the last line's arrival",
        )
        rows: list[common.Row] = []
        verdicts = {}
        for who, child in children.items():
            verdict = common.Verdict(0, 0, 0, 0, 0)
            for topic in topics[who]:
                verdict += common.judge(seconds, common.numbers(recorder.of(topic)))
            verdicts[who] = verdict
            rows.append(
                {
                    "who": who,
                    "cpu_s_per_min": used[who] * 60 / seconds,
                    "cpu_s_start": started[who],
                    "rss_mib": child.rss(),
                    "peak_rss_mib": child.peak_rss(),
                    "wakeups_per_s": woken[who] / seconds,
                    "disk_bytes": child.written() - written[who],
                    **vars(verdict),
                }
            )
        verdict = verdicts["agent"]
        a_minute = {who: seconds_used * 60 / seconds for who, seconds_used in used.items()}
        resident_mb = children["agent"].rss() * 1.048576
        limits = [
            common.Limit(
                "nothing lost, repeated or out of order", verdict.lost == verdict.duplicates == verdict.disordered == 0
            ),
            common.Limit("at most the bare script's CPU", a_minute["agent"] <= a_minute["bare"], speed=True),
            common.Limit("at most 40 MB resident", resident_mb <= 40, speed=True),
            common.Limit("nothing written to a disk", rows[0]["disk_bytes"] == 0, speed=True),
        ]
        ratios = {
            "idle: CPU, to bare": a_minute["bare"] / a_minute["agent"],
            "idle: memory, to bare": children["bare"].rss() / children["agent"].rss(),
        }
        return common.show(f"idle cost, {seconds} s", rows, limits, options, where, ratios)


if __name__ == "__main__":
    raise SystemExit(main())
