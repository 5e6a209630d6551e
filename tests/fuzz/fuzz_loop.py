"""Feeds inputs to a parser and judges what comes out: the contract of ``agent.driver.Parser``, for any bytes."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from fuzz_mutate import LONGEST, Mutator

from agent.codec import encode_fields
from agent.driver import Fault, Parser, Sample
from agent.model import FAULT_KINDS

MOST_FINDINGS: Final = 5
"""After so many the parser is broken enough to be mended first."""
MOST_STATE: Final = 96 * 1024
"""Bytes of a parser, pickled: four times the longest telegram that any of them waits for."""
SLOW: Final = 1.0
"""Seconds of CPU for one input of 4 kB: a thousand times what is usual."""
SEVENTH: Final = 7
"""Of so many inputs one is looked at deeply: the size of the parser's state, and whether ``end`` leaves any."""


@dataclass(frozen=True)
class Target:
    """A parser with its samples. cases: name, maker of a new parser, and what the device sent."""

    name: str
    cases: Sequence[tuple[str, Callable[[], Parser], bytes]]
    split: str
    seal: Callable[[bytes], bytes] | None = None
    kinds: frozenset[str] = frozenset()
    """Words of its own for faults."""
    forgets: bool = True
    """After ``end`` it is as new, in what it does."""
    longest: int = LONGEST
    """Bytes of an input, at most."""


@dataclass(frozen=True)
class Finding:
    """An input that breaks the contract."""

    case: str
    what: str
    data: bytes


@dataclass
class Result:
    """How far a run came."""

    inputs: int = 0
    size: int = 0
    samples: int = 0
    faults: int = 0
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.inputs} inputs ({self.size / 1e6:.1f} MB), {self.samples} readings and {self.faults} faults in "
            f"{self.seconds:.0f} s; {len(self.findings)} findings"
        )


def fuzz(target: Target, *, seed: int, most: int, seconds: float) -> Result:
    """Mutated inputs to each of the target's cases in turn, until there were ``most``, or ``seconds`` have passed."""
    mutator = Mutator([data for _, _, data in target.cases], target.split, target.seal, seed, target.longest)
    result = Result()
    begin = time.monotonic()
    while result.inputs < most and result.seconds < seconds and len(result.findings) < MOST_FINDINGS:
        case, make, _ = target.cases[result.inputs % len(target.cases)]
        data = mutator.next()
        try:
            items = judged(target, make, data, mutator, deep=not result.inputs % SEVENTH)
        except Exception as error:  # noqa: BLE001  (any exception of a parser is what we are looking for)
            result.findings.append(Finding(case, f"{type(error).__name__}: {error}", data))
            items = []
        result.inputs += 1
        result.size += len(data)
        result.samples += sum(isinstance(item, Sample) for item in items)
        result.faults += sum(isinstance(item, Fault) for item in items)
        result.seconds = time.monotonic() - begin
    return result


def judged(
    target: Target, make: Callable[[], Parser], data: bytes, mutator: Mutator, *, deep: bool
) -> list[Sample | Fault]:
    """What a parser makes of data. Raises AssertionError where it breaks the contract; deep: look at its state too."""
    whole, cut = make(), make()
    begin = time.process_time()
    items = list(whole.feed(data))
    if deep:
        assert len(pickle.dumps(whole)) < MOST_STATE, "it keeps more than it may"
    items += whole.end()
    assert time.process_time() - begin < SLOW, "it takes too long"
    pieces: list[Sample | Fault] = []
    at = 0
    while at < len(data):
        step = mutator.random.choice((1, 2, 7, 50, 500, 5000))
        pieces += cut.feed(data[at : at + step])
        at += step
    pieces += cut.end()
    assert repr(pieces) == repr(items), "it depends on how the bytes are cut"
    for item in items:
        if isinstance(item, Fault):
            assert item.kind in FAULT_KINDS.keys() | target.kinds, f"a fault of unknown kind {item.kind}"
            assert item.detail.isprintable(), f"a detail that a terminal obeys: {item.detail!r}"
            assert len(item.detail) < 400, "a detail without bounds"
        else:
            assert item.fields, "a reading of nothing"
            assert json.loads(encode_fields(item.fields)) == item.fields, "a value that JSON cannot say"
    if deep and target.forgets:
        assert repr([*whole.feed(data), *whole.end()]) == repr(items), "end() does not forget the stream"
    return items
