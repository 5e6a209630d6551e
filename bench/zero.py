"""A Pi Zero's share: the central figures again, where each measured process has a quarter of one core and 64 MB.

The other benchmarks, run as they are; what they measure runs in control groups (bench/box.py), so root is needed. The
quarter is given in slices of 2.5 ms of each 10: a latency may be longer by the 7.5 ms until the next one. This is not a
Pi Zero: its caches, its memory and its SD card are slower still. It shows that nothing is lost, nothing is killed for
its memory, and how far the agent is from the others where time is short.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import common
from bench.box import ASK, Box

CORES = 0.25
OCTETS = 64_000_000
RUNS = (  # benchmark, options, options of a quick run, what is shown of it
    ("flood", ["--only", "spill"], ["--quick"], ("per_s", "lost", "cpu_s_per_100k", "peak_rss_mib")),
    ("flood", ["--only", "auto strict"], None, ("per_s", "lost", "cpu_s_per_100k", "peak_rss_mib")),
    ("latency", ["--samples", "1000"], ["--quick"], ("p50_ms", "p99_ms")),
    ("idle", [], ["--quick"], ("cpu_s_per_min", "rss_mib")),
    ("coldstart", ["--runs", "5"], ["--quick"], ("median_s",)),
)


def run(name: str, words: list[str], folder: Path) -> dict[str, Any]:
    """The results of a benchmark in boxes. Raises SystemExit if it gave none: something in it did not work."""
    file = folder / f"{name}.json"
    command = [sys.executable, "-m", f"bench.{name}", "--json", str(file), *words]
    common.run(command, **{ASK: f"{CORES},{OCTETS}"})
    if not file.exists():
        raise SystemExit(f"bench: {name} did not come to its end in a box of {CORES} cores and {OCTETS:,} bytes")
    found: dict[str, Any] = json.loads(file.read_text())
    file.unlink()
    return found


def main(argv: list[str] | None = None) -> int:
    parser = common.parser(__doc__)
    options = parser.parse_args(argv)
    where = common.machine()
    trial = Box(CORES, OCTETS)
    try:
        trial.open()
    except OSError as error:
        print(f"zero: left out: control groups cannot be made here: {error}")
        return 0
    finally:
        trial.close()
    rows: dict[tuple[object, ...], common.Row] = {}  # the bare script and the floor stand in each run of a flood
    kept = True
    with tempfile.TemporaryDirectory() as folder:
        for name, usual, quick, keys in RUNS:
            words = quick if options.quick else usual
            if words is None:
                continue
            result = run(name, words, Path(folder))
            kept &= all(limit["met"] for limit in result["limits"] if not limit["speed"])
            for row in result["rows"]:
                key = (name, row["who"], row.get("qos", ""))
                figures = {figure: row[figure] for figure in keys}
                rows.setdefault(key, dict(zip(("what", "who", "qos"), key, strict=True)) | figures)
    limits = [common.Limit("what does not depend on speed is kept, and nothing was killed", kept)]
    print()
    title = f"a Pi Zero's share: {CORES:g} of a core, {OCTETS / 1e6:g} MB for each process"
    return common.show(title, [*rows.values()], limits, options, where)


if __name__ == "__main__":
    raise SystemExit(main())
