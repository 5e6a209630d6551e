"""Replays every golden case: ``<driver>/<case>/{device.toml, input.txt | input.hex, expected.jsonl}``.

``device.toml`` is the device's table; ``input.hex`` may hold comments after ``#``. The lines of ``expected.jsonl`` are
what the parser gives, in order: ``{"fields": ...}`` or ``{"fault": kind, "detail": ..., "raw": the first 64 bytes, as
Python writes them}``. The stream ends after the input. However it is cut, the same must come out.

A new case: write ``device.toml`` and the input, run ``pytest tests/cases --write-missing``, and read what it wrote.
"""

from __future__ import annotations

import importlib
import json
import pickle
import random
import re
import tomllib
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agent.driver import Fault, Parser, Sample, StreamDriver
from agent.model import FAULT_KINDS

CASES = Path(__file__).parent
ROOT = CASES.parents[1]
FOUND = sorted(path.parent for path in CASES.glob("*/*/device.toml"))


def driver_class(name: str) -> type[StreamDriver]:
    """As pyproject.toml names it: the case also runs where the package is not installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, attribute = project["entry-points"]["outstation.drivers"][name].partition(":")
    found: type[StreamDriver] = getattr(importlib.import_module(module), attribute)
    return found


def new_parser(case: Path) -> Parser:
    table = tomllib.loads((case / "device.toml").read_text())
    assert table["driver"] == case.parent.name
    driver = driver_class(table["driver"])
    return driver(driver.Config(**table), None).parser()  # type: ignore[arg-type]  # a constructor only assigns


def wire_bytes(case: Path) -> bytes:
    text = case / "input.txt"
    if text.exists():
        return text.read_bytes()
    lines = (case / "input.hex").read_text().splitlines()
    return bytes.fromhex(" ".join(line.partition("#")[0] for line in lines))


def replay(parser: Parser, pieces: Iterable[bytes]) -> list[dict[str, Any]]:
    items = [item for piece in pieces for item in parser.feed(piece)]
    return [
        {"fields": item.fields}
        if isinstance(item, Sample)
        # What is wrong with JSON is said in orjson's words, which change with its version.
        else {
            "fault": item.kind,
            "detail": re.sub("(not JSON): .*", r"\1", item.detail),
            "raw": repr(item.raw[:64])[2:-1],
        }
        for item in [*items, *parser.end()]
    ]


def choppings(data: bytes) -> Iterator[tuple[str, list[bytes]]]:
    yield "whole", [data]
    yield "byte by byte", [data[i : i + 1] for i in range(len(data))]
    for seed in range(20):
        rng = random.Random(seed)
        cuts = sorted({0, len(data), *(rng.randrange(len(data) + 1) for _ in range(rng.randrange(1, 30)))})
        yield f"cut with seed {seed}", [data[a:b] for a, b in pairwise(cuts)]


def choppings_by(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


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


def encoded(items: Iterable[dict[str, Any]]) -> str:
    """Text is compared, as 1 == 1.0 == True would hide a change of type and dicts one of order."""
    return "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)


@pytest.mark.parametrize("case", FOUND, ids=lambda case: f"{case.parent.name}/{case.name}")
def test_case(case: Path, request: pytest.FixtureRequest) -> None:
    data = wire_bytes(case)
    file = case / "expected.jsonl"
    if not file.exists() and request.config.getoption("--write-missing", default=False):
        file.write_text(encoded(replay(new_parser(case), [data])))
        pytest.skip(f"wrote {file}: read it")
    expected = file.read_text()
    for how, pieces in choppings(data):
        assert encoded(replay(new_parser(case), pieces)) == expected, how
    assert encoded(replay(Moving(new_parser(case)), choppings_by(data, 7))) == expected, "into other processes"


def test_the_cases_cover_every_kind_of_fault_that_a_line_can_be() -> None:
    seen = {
        json.loads(line).get("fault")
        for case in FOUND
        if case.parent.name == "lines"
        for line in (case / "expected.jsonl").read_text().splitlines()
    }
    assert {kind for kind in FAULT_KINDS if kind not in ("checksum", "timeout", "unreadable", "parser")} <= seen
