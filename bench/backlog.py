"""A million readings come while the broker is away, then it is back: how fast they are kept, how fast they go out, and
what that takes in memory. A second device goes on speaking meanwhile.

The measurement is the chaos harness's own (tests/chaos/rows_device.py), which also judges that each reading arrived,
once, in order and with its true time; a C compiler is needed for it.
"""

from __future__ import annotations

import sys

from bench import common

CASES = (("spill", "fifo"), ("spill", "live_first"), ("strict", "fifo"), ("strict", "live_first"))


def main(argv: list[str] | None = None) -> int:
    parser = common.parser(__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, help="readings")
    options = parser.parse_args(argv)
    count = 50_000 if options.quick else options.count
    sys.path += [str(common.ROOT / "tests" / folder) for folder in ("chaos", "integration")]
    from rows_device import backlog

    where = common.machine()
    rows: list[common.Row] = []
    limits: list[common.Limit] = []
    for durability, replay in CASES:
        row = backlog(count, durability=durability, replay=replay, long=not options.quick)
        rows.append({"durability": durability, "replay": replay, **row.figures, "lost": row.verdict.lost})
        limits += [
            common.Limit(f"{durability}, {replay}: {limit.promise}", limit.met, limit.speed) for limit in row.limits
        ]
    # What is kept is a matter of course; a table of forty promises would hide the one that is not.
    limits = [limit for limit in limits if limit.speed or not limit.met] + [
        common.Limit("all else that the chaos table promises of it", all(limit.met or limit.speed for limit in limits))
    ]
    return common.show(f"backlog of {count:,} readings, batch = 100", rows, limits, options, where)


if __name__ == "__main__":
    raise SystemExit(main())
