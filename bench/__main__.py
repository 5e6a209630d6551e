"""All benchmarks, one after another, each in a process of its own: `make bench`, or `make bench ARGS=--quick`."""

from __future__ import annotations

import argparse
import sys

from bench import common, guard

ALL = (
    "flood",
    "latency",
    "idle",
    "coldstart",
    "outage",
    "replug",
    "ports",
    "modbus",
    "reload",
    "requests",
    "page",
    "stop",
    "backlog",
    "scale",
    "events",
    "workers",
    "zero",
)
FOLDER = guard.RESULTS


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ALL)}; default: all")
    parser.add_argument("--quick", action="store_true", help="short runs: show that all works, not the figures")
    options = parser.parse_args()
    if unknown := set(options.names) - set(ALL):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.json"):
        if old.stem in (options.names or ALL):
            old.unlink()  # what ends early shall not be taken for what ran before
    missed = []
    for name in options.names or ALL:
        command = [sys.executable, "-m", f"bench.{name}", "--json", str(FOLDER / f"{name}.json")]
        if common.run([*command, *(["--quick"] if options.quick else [])]):
            missed.append(name)
        print(flush=True)
    if options.quick and not guard.check(FOLDER):
        missed.append("the baseline")
    if missed:
        print(f"not met: {', '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
