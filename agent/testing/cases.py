"""Golden cases: folders with what a device sent and what its driver's parser must make of it, however it is cut.

``device.toml`` is the device's table; ``input.txt`` or ``input.hex`` (which may hold comments after ``#``) what came;
the lines of ``expected.jsonl`` what the parser gives, in order: ``{"fields": ...}`` or ``{"fault": kind, "detail": ...,
"raw": the first 64 bytes, as Python writes them}``. The stream ends after the input.
"""

from __future__ import annotations

import json
import random
import re
import tomllib
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, cast

from agent.driver import Context, Driver, Parser, Sample


class _Parses(Protocol):
    def parser(self) -> Parser: ...


def check(driver: type[Driver], case: Path) -> None:
    """Replay a case whole, byte by byte and cut at random, each with a new parser. Raises AssertionError."""
    data = wire_bytes(case)
    expected = (case / "expected.jsonl").read_text(encoding="utf-8")
    for how, pieces in choppings(data):
        given = encoded(replay(new_parser(driver, case), pieces))
        assert given == expected, f"{case.name}, {how}, gives\n{given}\nand not\n{expected}"


def new_parser(driver: type[Driver], case: Path) -> Parser:
    """A parser of the device that the case describes."""
    table = tomllib.loads((case / "device.toml").read_text(encoding="utf-8"))
    made = driver(driver.Config(**table), cast(Context, None))  # a constructor only assigns
    return cast(_Parses, made).parser()


def wire_bytes(case: Path) -> bytes:
    """What the device sent."""
    text = case / "input.txt"
    if text.exists():
        return text.read_bytes()
    lines = (case / "input.hex").read_text(encoding="utf-8").splitlines()
    return bytes.fromhex(" ".join(line.partition("#")[0] for line in lines))


def replay(parser: Parser, pieces: Iterable[bytes]) -> list[dict[str, Any]]:
    """What the parser makes of the pieces and of their end."""
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
    """Ways to cut data, each with its name: the same ones at each call."""
    yield "whole", [data]
    yield "byte by byte", [data[i : i + 1] for i in range(len(data))]
    for seed in range(20):
        rng = random.Random(seed)
        cuts = sorted({0, len(data), *(rng.randrange(len(data) + 1) for _ in range(rng.randrange(1, 30)))})
        yield f"cut with seed {seed}", [data[a:b] for a, b in pairwise(cuts)]


def encoded(items: Iterable[dict[str, Any]]) -> str:
    """Text is compared, as 1 == 1.0 == True would hide a change of type and dicts one of order."""
    return "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)


def write_input(case: Path, data: bytes) -> None:
    """``input.txt`` where data is text that survives editors and git, else ``input.hex``, sixteen bytes a line."""
    if re.fullmatch(rb"[\n\r\t -~]*", data):
        (case / "input.txt").write_bytes(data)
    else:
        lines = [data[at : at + 16].hex(" ") for at in range(0, len(data), 16)]
        (case / "input.hex").write_text("\n".join(lines) + "\n", encoding="utf-8")
