"""Whether anything got slower: ratios of a quick run, ours beside others' of the same run, against bench/baseline.json.

    python -m bench.guard [FOLDER]                  compare the results there (default: bench/results)
    python -m bench.guard --learn FOLDER FOLDER...  write the baseline anew, from quick runs, idle and busy

Ratios count, as a machine that others use is slow for all in it. Even so some of them swing: only those are judged
whose worst of all learnt runs stood in the upper half of what is tolerated. The others stand in the file too, with how
far they fell, so that nobody takes them for judged. More is better in all of them; a quarter less is a failure.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

BASELINE = Path(__file__).resolve().parent / "baseline.json"
RESULTS = Path(__file__).resolve().parent / "results"
WORSE = 0.75
"""The part of the baseline below which a ratio is a failure."""
STEADY = (1 + WORSE) / 2
"""The part of its median above which a ratio stays in each learnt run, if it is to be judged."""
BETTER = 1.25
"""From so many times the baseline on, the baseline is out of date: what it guards would have to fall twice as far."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one judged ratio."""

    name: str
    was: float
    now: float

    @property
    def worse(self) -> bool:
        return self.now < WORSE * self.was

    @property
    def better(self) -> bool:
        return self.now > BETTER * self.was


def found(folder: Path) -> dict[str, float]:
    """The ratios of all results in a folder. Raises OSError or ValueError on a file that is no result."""
    ratios: dict[str, float] = {}
    for file in sorted(folder.glob("*.json")):
        ratios |= json.loads(file.read_text()).get("ratios", {})
    return ratios


def compare(ratios: Mapping[str, float], judged: Mapping[str, float]) -> list[Verdict]:
    """Of those that both have: not every run measures all."""
    return [Verdict(name, was, ratios[name]) for name, was in judged.items() if name in ratios]


def learn(runs: Sequence[Mapping[str, float]]) -> dict[str, dict[str, object]]:
    """What a baseline holds: ``judged``, name -> median; ``unjudged``, name -> its median and its worst."""
    judged: dict[str, object] = {}
    unjudged: dict[str, object] = {}
    for name in runs[0]:
        values = [run[name] for run in runs if name in run]
        median, worst = statistics.median(values), min(values)
        if len(values) == len(runs) and worst >= STEADY * median:
            judged[name] = round(median, 3)
        else:
            unjudged[name] = {"median": round(median, 3), "worst": round(worst, 3)}
    return {"judged": judged, "unjudged": unjudged}


def check(folder: Path = RESULTS, baseline: Path = BASELINE) -> bool:
    """Print what became of the judged ratios that were measured; whether none is worse."""
    verdicts = compare(found(folder), json.loads(baseline.read_text())["judged"])
    if not verdicts:
        return True
    print(f"beside the baseline ({len(verdicts)} ratios; more is better, less than {WORSE:g} of it fails):")
    for verdict in verdicts:
        word = "WORSE" if verdict.worse else "better" if verdict.better else "kept"
        print(f"  {word:<6}  {verdict.name}: {verdict.was:.3f} -> {verdict.now:.3f}")
    if any(verdict.better for verdict in verdicts):
        print("  Where it is better for good, learn the baseline anew: python -m bench.guard --learn")
    sys.stdout.flush()
    return not any(verdict.worse for verdict in verdicts)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.guard", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--learn", action="store_true", help="write the baseline from the results of quick runs")
    options = parser.parse_args(argv)
    if not options.learn:
        return 0 if check(*options.folders[:1]) else 1
    if len(options.folders) < 5:
        parser.error("how far a ratio swings shows in five runs or more")
    BASELINE.write_text(json.dumps(learn([found(folder) for folder in options.folders]), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
