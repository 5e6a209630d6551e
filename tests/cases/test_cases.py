"""Replays every golden case: ``<driver>/<case>/{device.toml, input.txt | input.hex, expected.jsonl}``.

``agent.testing.cases`` has their form, and replays them: however the input is cut, the same must come out.

A new case: write ``device.toml`` and the input, run ``pytest tests/cases --write-missing``, and read what it wrote.
"""

from __future__ import annotations

import importlib
import json
import pickle
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

from agent.driver import Fault, Parser, Sample, StreamDriver
from agent.model import FAULT_KINDS
from agent.testing.cases import check, encoded, new_parser, replay, wire_bytes

CASES = Path(__file__).parent
ROOT = CASES.parents[1]
FOUND = sorted(path.parent for path in CASES.glob("*/*/device.toml"))


def driver_class(name: str) -> type[StreamDriver]:
    """As pyproject.toml names it: the case also runs where the package is not installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, attribute = project["entry-points"]["outstation.drivers"][name].partition(":")
    found: type[StreamDriver] = getattr(importlib.import_module(module), attribute)
    return found


class Moving(Parser):
    """A parser that goes to another process after each piece (``workers.kind = "process"``)."""

    def __init__(self, parser: Parser) -> None:
        self._parser = parser

    def feed(self, data: bytes) -> Iterable[Sample | Fault]:
        items = list(self._parser.feed(data))
        self._parser = pickle.loads(pickle.dumps(self._parser))
        return items

    def end(self) -> Iterable[Sample | Fault]:
        return self._parser.end()


@pytest.mark.parametrize("case", FOUND, ids=lambda case: f"{case.parent.name}/{case.name}")
def test_case(case: Path, request: pytest.FixtureRequest) -> None:
    driver = driver_class(case.parent.name)
    assert tomllib.loads((case / "device.toml").read_text())["driver"] == case.parent.name
    file = case / "expected.jsonl"
    if not file.exists() and request.config.getoption("--write-missing", default=False):
        file.write_text(encoded(replay(new_parser(driver, case), [wire_bytes(case)])))
        pytest.skip(f"wrote {file}: read it")
    check(driver, case)
    data = wire_bytes(case)
    sevens = [data[at : at + 7] for at in range(0, len(data), 7)]
    assert encoded(replay(Moving(new_parser(driver, case)), sevens)) == file.read_text(), "into other processes"


def test_the_cases_cover_every_kind_of_fault_that_a_line_can_be() -> None:
    seen = {
        json.loads(line).get("fault")
        for case in FOUND
        if case.parent.name == "lines"
        for line in (case / "expected.jsonl").read_text().splitlines()
    }
    assert {
        kind for kind in FAULT_KINDS if kind not in ("checksum", "compute", "timeout", "unreadable", "parser")
    } <= seen
