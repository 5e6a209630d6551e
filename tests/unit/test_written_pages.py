"""The written pages say what the code does: what one of them names exists, and what must be explained is."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from agent.errors import LinkError
from agent.model import FAULT_KINDS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").glob("*.md")])
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()

LOGGERS = {"debug", "info", "warning", "error", "critical", "log", "line", "_back_off", "warn", "_warn"}
"""Calls whose text is a line of the log."""


def log_events() -> dict[str, str]:
    """Each ``noun.verb`` that the agent logs, with where."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / "agent").rglob("*.py")):
        if "testing" in path.parts:
            continue
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call):
                continue
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            if name not in LOGGERS:
                continue
            for argument in call.args[:2]:
                for node in ast.walk(argument):
                    if isinstance(node, ast.Constant) and isinstance(node.value, str):
                        match = re.match(r"([a-z]+\.[a-z_]+)(?=\s|$)", node.value)
                        if match:
                            found.setdefault(match[1], f"{path.name}:{call.lineno}")
    return found


def table(heading: str) -> list[str]:
    """First cells of the table that follows heading in the operator's page."""
    _, _, rest = OPERATIONS.partition(heading)
    assert rest, f"no {heading!r} in docs/operations.md"
    cells = []
    for line in rest.splitlines():
        if line.startswith("|"):
            cells.append(line.split("|")[1])
        elif cells:
            break
    return cells[1:]  # without the rule below the heading


def words(cells: list[str]) -> set[str]:
    return {word for cell in cells for word in re.findall(r"`([a-z_.]+)`", cell)}


def test_every_log_event_is_explained_and_exists() -> None:
    events = log_events()
    assert len(events) > 20, "log_events() finds no events any more: adapt LOGGERS"
    explained = words(table("\n| event | meaning |"))
    assert not {f"{event} ({events[event]})" for event in events.keys() - explained}, "not in docs/operations.md"
    assert not explained - events.keys(), "in docs/operations.md, but nowhere in the code"


def test_every_kind_of_fault_is_explained() -> None:
    assert words(table("\n| kind | what came |")) == FAULT_KINDS.keys()


def test_every_reason_of_a_lost_link_is_explained() -> None:
    reasons = set(re.findall(r'"([a-z_]+)"', LinkError.__doc__ or ""))
    assert words(table("\n| `link.last_error.reason` | usual cause |")) == reasons


def keys(path: Path) -> set[str]:
    """Keys of all dict literals in a module."""
    return {
        key.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant) and isinstance(key.value, str)
    }


def test_every_field_of_the_status_report_is_explained() -> None:
    _, _, section = OPERATIONS.partition("### The status report")
    section = section.partition("\n## ")[0]
    plain = {word.removesuffix("_s").removesuffix("_bytes") for word in re.findall(r"[a-z_]+", section)}
    named = plain | set(re.findall(r"[a-z_]+", section))
    fields = keys(ROOT / "agent" / "status.py")
    unexplained = {
        field for field in fields if field not in named and field.replace("_", " ") not in section and field != "events"
    }
    # What a field of these groups means, its name says.
    obvious = {"kernel", "machine", "python", "cpu_s", "rss_bytes", "rss_peak_bytes", "abandoned", "longest_wait_s"}
    obvious |= {"name", "worst_s", "total_s", "where", "timed_out"}
    assert not unexplained - obvious


def test_every_exit_status_is_explained() -> None:
    statuses = {word for cell in table("\n| status | meaning |") for word in re.findall(r"\d+", cell)}
    assert {"0", "2", "70", "75", "78", "130", "143"} == statuses


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = [
        target
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
        if "://" not in target and not target.startswith("mailto:") and not (page.parent / target).exists()
    ]
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^ {4}|\$ )make ([a-z-]+)", page.read_text(), re.MULTILINE))
    assert not named - targets


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
