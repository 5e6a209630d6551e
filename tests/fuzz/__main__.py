"""The long run of fuzzing, `make fuzz`: each parser under mutated golden cases, for minutes or for so many inputs.

    make fuzz                                          # every parser, a minute each
    make fuzz ARGS="p1 sml --inputs 1000000 --minutes 60 --seed 7"

Prints a line for each parser, and for each finding what broke and the input as hex: paste it into ``input.hex`` of a
folder in tests/cases, with the ``device.toml`` of the case that it names. Exit status 1 if anything was found.
"""

from __future__ import annotations

import argparse
import sys

from fuzz_loop import fuzz
from fuzz_targets import TARGETS, target


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description="Fuzz the parsers of drivers.")
    parser.add_argument("drivers", nargs="*", metavar="DRIVER", help=f"which; default: all of {', '.join(TARGETS)}")
    parser.add_argument("--minutes", type=float, default=1.0, help="most minutes a parser (default: 1)")
    parser.add_argument("--inputs", type=int, default=sys.maxsize, help="most inputs a parser (default: any number)")
    parser.add_argument("--seed", type=int, default=20261124, help="the same seed makes the same inputs")
    given = parser.parse_args()
    if strange := [name for name in given.drivers if name not in TARGETS]:
        parser.error(f"no parser to fuzz: {', '.join(strange)}; there are {', '.join(TARGETS)}")
    found = 0
    for name in given.drivers or TARGETS:
        result = fuzz(target(name), seed=given.seed, most=given.inputs, seconds=given.minutes * 60)
        print(f"{name}: {result}", flush=True)
        for finding in result.findings:
            print(f"{name}/{finding.case}: {finding.what}\n{finding.data.hex(' ')}\n", flush=True)
        found += len(result.findings)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
