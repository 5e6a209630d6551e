"""A row of the chaos table: what was broken, how often, and what the judge counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

from chaos_judge import Verdict

from bench.common import Limit

HEAD = (
    "what was broken",
    "times",
    "read",
    "lost",
    "lost within the bound",
    "cut in two",
    "out of order",
    "seq twice",
    "duplicates",
    "how it went",
)


@dataclass
class Row:
    """One line of the table. times: how often it was broken; notes: what else was measured, in words."""

    what: str
    times: int
    verdict: Verdict
    cut: int = 0
    limits: list[Limit] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    """What was measured, by name, where bench/ shows it too."""

    def __post_init__(self) -> None:
        """What every row promises; a row adds its own."""
        verdict = self.verdict
        self.limit("nothing is lost that was read in time", verdict.lost == 0)
        self.limit("first arrivals are in order", verdict.disordered == 0)
        self.limit("no seq for two readings, no reading with two", verdict.reused == 0)
        self.limit("each gap in seq ends in a reading that is marked as resumed", verdict.gaps == 0)
        self.limit("each reading is that of a line that was read", verdict.strange == 0)
        self.limit("nothing comes twice without a cause", verdict.unprovoked == 0)
        self.limit("something was read", verdict.read > 0)

    def limit(self, promise: str, met: bool, *, speed: bool = False) -> None:
        """speed: it depends on the machine, and is judged in the long form alone."""
        self.limits.append(Limit(promise, bool(met), speed))

    def missed(self, *, quick: bool) -> list[str]:
        return [limit.promise for limit in self.limits if not limit.met and not (quick and limit.speed)]

    def check(self) -> None:
        """For a test: raises AssertionError if a promise was not met, whatever the machine's speed."""
        missed = self.missed(quick=True)
        assert not missed, f"{self.what}: not kept: {'; '.join(missed)}\n{self.verdict}\n{'; '.join(self.notes)}"

    def cells(self) -> list[str]:
        verdict = self.verdict
        numbers = (self.times, verdict.read, verdict.lost, verdict.young, self.cut)
        more = (verdict.disordered, verdict.reused, verdict.duplicates)
        missed = self.missed(quick=False)
        notes = [*(f"**MISSED: {promise}**" for promise in missed), *self.notes]
        return [self.what, *(f"{number:,}" for number in (*numbers, *more)), "; ".join(notes)]


def table(rows: Iterable[Row]) -> str:
    """In Markdown."""
    lines = ["| " + " | ".join(HEAD) + " |", "|---" + "|---:" * (len(HEAD) - 2) + "|---|"]
    lines += ["| " + " | ".join(row.cells()) + " |" for row in rows]
    return "\n".join(lines)


def side_by_side(works: Sequence[Callable[[], Any]]) -> None:
    """Run them at the same time, each on a thread; raises what the first that failed has raised."""
    failures: list[BaseException] = []

    def run(work: Callable[[], Any]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  (raised below, on the caller's thread)
            failures.append(error)

    threads = [Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
