"""The fuzzer itself: it finds what it is for, the same in every run; and each parser, for a moment."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable, Iterable
from functools import partial

import pytest
from fuzz_loop import MOST_FINDINGS, Target, fuzz
from fuzz_targets import CASES, ROOT, TARGETS, target

from agent.driver import Fault, Parser, Sample
from agent.framing import LineFramer


class Number(Parser):
    """Numbers, one a line; defect: what is wrong with it."""

    def __init__(self, defect: str = "") -> None:
        self._framer = LineFramer()
        self._defect = defect
        self._seen = 0

    def feed(self, data: bytes) -> Iterable[Sample | Fault]:
        self._seen += 1
        return [item for line in self._framer.feed(data) for item in self._line(line)]

    def end(self) -> Iterable[Sample | Fault]:
        if self._defect != "remembers":
            self._seen = 0
        return [*self._framer.end()]

    def _line(self, line: bytes | Fault) -> Iterable[Sample | Fault]:
        if isinstance(line, Fault):
            yield line
        elif self._defect == "raises" and b"-" in line:
            raise ZeroDivisionError("by zero")
        elif not line.isdigit():
            yield Fault("nonsense" if self._defect == "names" else "syntax", "", line[:64])
        else:
            yield Sample({"n": self._seen if self._defect in ("cuts", "remembers") else len(line)})


def numbers(defect: str) -> Target:
    return Target("number", [("only", partial(Number, defect), b"12\n-5\n700\n")], r"\n")


@pytest.mark.parametrize(
    ("defect", "what"),
    [
        ("raises", "ZeroDivisionError: by zero"),
        ("cuts", "it depends on how the bytes are cut"),
        ("names", "a fault of unknown kind nonsense"),
        ("remembers", "it depends on how the bytes are cut"),
    ],
)
def test_a_parser_that_breaks_the_contract_is_found(defect: str, what: str) -> None:
    found = fuzz(numbers(defect), seed=1, most=2000, seconds=60)
    assert len(found.findings) == MOST_FINDINGS
    assert what in {finding.what.removeprefix("AssertionError: ") for finding in found.findings}
    again = fuzz(numbers(defect), seed=1, most=2000, seconds=60)
    assert again.findings == found.findings, "the same seed finds the same"


def test_a_parser_that_keeps_the_contract_is_not() -> None:
    assert not fuzz(numbers(""), seed=1, most=2000, seconds=60).findings


def test_each_driver_with_golden_cases_is_fuzzed() -> None:
    names = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["outstation.drivers"]
    assert {path.parent.parent.name for path in CASES.glob("*/*/device.toml")} == set(TARGETS)
    assert set(TARGETS) <= set(names)


@pytest.mark.parametrize("name", TARGETS)
def test_no_parser_breaks_it_in_its_first_inputs(name: str) -> None:
    found = fuzz(target(name), seed=20261124, most=100, seconds=sys.maxsize)
    assert not found.findings
    assert found.samples, "nothing gets past the checks: the mutations are too wild"


def test_a_seal_leads_past_the_checksum() -> None:
    sealed: Callable[[bytes], bytes] | None = TARGETS["p1"].seal
    assert sealed is not None
    (_, make, _) = target("p1").cases[0]
    assert [type(item) for item in make().feed(sealed(b"X\r\n1-0:1.8.0(5*kWh)"))] == [Sample]
