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


URGENT = {"warning", "error", "critical", "log", "warn", "_warn", "_back_off"}
"""Those among them of level WARNING or above."""


def log_events(loggers: set[str] = LOGGERS) -> dict[str, str]:
    """Each ``noun.verb`` that the agent logs, with where."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / "agent").rglob("*.py")):
        if "testing" in path.parts:
            continue
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call):
                continue
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            if name not in loggers:
                continue
            for argument in call.args[:2]:
                for node in ast.walk(argument):
                    if isinstance(node, ast.Constant) and isinstance(node.value, str):
                        match = re.match(r"([a-z]+\.[a-z_]+)(?=\s|$)", node.value)
                        if match:
                            found.setdefault(match[1], f"{path.name}:{call.lineno}")
    return found


def remedies(page: str) -> dict[str, tuple[str, str, str]]:
    """Level, cause and remedy of each event of docs/log.md."""
    found = {}
    for row in page.splitlines():
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        if len(cells) == 4 and cells[0].startswith("`"):
            for event in re.findall(r"`([a-z_.]+)`", cells[0]):
                assert event not in found, f"{event} stands twice in docs/log.md"
                found[event] = (cells[1], cells[2], cells[3])
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


def test_every_event_that_asks_for_something_has_a_cause_and_a_remedy() -> None:
    # Handed over by the worker that has read the file, as text.
    events = {**log_events(URGENT), "password.readable": "mqtt_connect.py"}
    explained = remedies((ROOT / "docs" / "log.md").read_text())
    assert len(events) > 40, "log_events() finds no events any more: adapt URGENT"
    assert not {f"{event} ({events[event]})" for event in events.keys() - explained.keys()}, "not in docs/log.md"
    assert not explained.keys() - events.keys(), "in docs/log.md, but nowhere in the code, or not at that level"
    for event, (level, cause, remedy) in explained.items():
        assert level.split(";")[0] in ("WARNING", "ERROR", "CRITICAL"), event
        assert cause, event
        assert remedy, event
    for call in ("warning", "error", "critical"):
        wrong = {event for event in log_events({call}) if call.upper() not in explained[event][0]}
        assert not wrong, f"docs/log.md does not say {call.upper()}"


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
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^ {4}|\$ )make ([a-z0-9-]+)", page.read_text(), re.MULTILINE))
    assert not named - targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_test_that_is_named_exists(page: Path) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text())
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).exists() or not re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.MULTILINE)
    ]
    assert not missing


def test_every_threat_has_a_measure_and_a_test_that_shows_it() -> None:
    _, _, section = (ROOT / "SECURITY.md").read_text().partition("\n## Threats\n")
    rows = [line.strip("|").split("|") for line in section.partition("\n## ")[0].splitlines() if line.startswith("|")]
    assert len(rows) > 10
    for who, _, measure, shown in rows[2:]:
        assert measure.strip(), who
        assert re.search(r"`tests/\S+::test_\w+`", shown), f"no test shows what stands against {who.strip()}"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
