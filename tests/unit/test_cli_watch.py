"""`outstation watch` without a broker: what comes first, what is kept, and what is drawn in which window."""

from __future__ import annotations

import io
import json
from typing import Any

import orjson
import pytest
from click.testing import CliRunner
from rich.console import Console

from agent import cli_watch_view
from agent.cli import cli
from agent.cli_verify_view import Facts
from agent.cli_watch_seen import CHANNELS, LONGEST, VALUE_BYTES, Rate, Sight, as_text, sight
from agent.cli_watch_view import LinesView, ScreenView, WatchOptions
from agent.clock import Clock, ClockSettings
from agent.mqtt_settings import MqttSettings

FACTS = Facts("mqtt://broker:1883", "outstation/+/+/telemetry", 1.0)


class Time:
    """Both clocks, moved by the test."""

    def __init__(self) -> None:
        self.ns = 100_000_000_000

    def clock(self) -> Clock:
        return Clock(ClockSettings(), mono_ns=lambda: self.ns, wall_now_ns=lambda: self.ns)


def add(seen: Sight, device: str, *seqs: int, at: float = 100.0, **fields: Any) -> None:
    for seq in seqs:
        payload = orjson.dumps({"ts": "2026-11-24T00:37:00Z", "seq": seq, "fields": fields or {"n": seq}})
        seen.reading(f"outstation/{device}/telemetry", payload, at=at, dup=False, retained=False)


def filled() -> Sight:
    seen = sight("outstation")
    seen.connection.accepted(False)
    seen.state("a", "", b"online")
    seen.state("a", "fine", b"online")
    add(seen, "a/fine", 1, 2, temperature=21.5)
    add(seen, "b/gaps", 1, 4)
    seen.state("z", "", b"offline")
    seen.state("z", "pump", b"online")
    seen.state("y", "", b"offline")
    return seen


# ---- what is seen


def test_offline_ones_come_first_then_gaps_then_by_name() -> None:
    seen = filled()
    assert seen.first(10) == [("y", ""), ("z", "pump"), ("b", "gaps"), ("a", "fine")]
    assert seen.first(2, skip=1) == [("z", "pump"), ("b", "gaps")]
    assert seen.counts() == (4, 2, 3, 1)
    assert as_text(seen.row(("z", "pump"), 100.0)) == "z/pump offline"
    assert as_text(seen.row(("b", "gaps"), 100.0)) == "b/gaps ? seq 4, 0.0/s, missing 2: n 4"


def test_bare_values_are_shown_and_what_no_agent_sends_is_not() -> None:
    seen = sight("outstation")
    seen.state("a", "", b"online")
    for topic, payload in (
        ("a/w/temp", b"21.5"),
        ("a/w/state", b"open"),
        ("a/w/lost", b"null"),
        ("a/response/set", b"{}"),
        ("a b/w/temp", b"1"),
        ("a/w/temp", b"22"),
    ):
        seen.value(topic, payload, at=100.0, retained=False)
    seen.value("a/old/temp", b"1", at=100.0, retained=True)
    assert list(seen.known()) == [("a", "w")]
    seen.look(100.0)
    assert as_text(seen.row(("a", "w"), 101.0)) == "a/w ? 0.0/s: temp 22, state open, lost null"
    assert seen.row(("a", "w"), 101.0).age == 1.0
    assert seen.counts() == (1, 0, 1, 0)


def test_bare_values_are_bounded() -> None:
    seen = sight("outstation")
    for number in range(CHANNELS + 50):
        seen.value(f"a/w/c{number}", b"x" * 10_000, at=100.0, retained=False)
    row = seen.row(("a", "w"), 100.0)
    assert row.received == CHANNELS + 50
    assert len(row.fields) == CHANNELS
    assert all(len(value) == VALUE_BYTES for value in row.fields.values())


def test_a_state_that_is_taken_back_is_forgotten() -> None:
    seen = filled()
    seen.state("y", "", b"")
    assert ("y", "") not in set(seen.known())


def test_a_rate_is_right_from_the_second_look_and_forgets_the_first() -> None:
    rate = Rate(0.0, 0.0, 500)
    rate.look(0.0, 500)
    for second in range(1, 11):
        rate.look(second, 500 + 5 * second)
    assert rate.value == pytest.approx(5.0)
    for second in range(11, 200):
        rate.look(second, 550)
    assert rate.value < 0.05


def test_what_an_agent_reports_is_read_and_what_is_no_report_is_passed_over() -> None:
    seen = sight("outstation")
    report = {"versions": {"agent": "1.2"}, "uptime_s": 12.5, "outbox": {"waiting": 3}}
    seen.status_report("a", orjson.dumps(report))
    assert (seen.about["a"].version, seen.about["a"].uptime, seen.about["a"].waiting) == ("1.2", 12.5, 3)
    for bad in (b"", b"[]", b"7", b"{}", b'{"versions":[]}', orjson.dumps({**report, "uptime_s": None})):
        seen.status_report("b", bad)
    assert "b" not in seen.about


def test_no_more_of_a_reading_is_kept_than_can_be_shown() -> None:
    seen = sight("outstation")
    add(seen, "a/big", 1, **{f"channel{number}": "x" * 100 for number in range(1000)})
    add(seen, "a/huge", 1, first=1, text="x" * 100_000)
    assert 3000 < len(orjson.dumps(seen.tally.devices["a", "big"].fields)) <= LONGEST
    assert seen.tally.devices["a", "huge"].fields == {"first": 1}


def test_a_device_costs_a_kilobyte_and_not_what_a_proof_costs() -> None:
    """A watcher of 10,000 devices: the proof's memory of contents alone would be 640 MB."""
    seen = sight("outstation")
    add(seen, "a/d", *range(1, 20_000, 2))
    device = seen.tally.devices["a", "d"]
    assert (device.lost, device.missing.pairs) == (9999, 100)
    assert len(device._contents._seqs) == 64


# ---- what is written


def lines(seen: Sight, time: Time, capsys: pytest.CaptureFixture[str], *, json: bool = False) -> LinesView:
    view = LinesView(FACTS, seen, time.clock(), json=json)
    view.start()
    capsys.readouterr()
    return view


def test_a_line_for_what_is_new_and_none_for_what_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    time, seen = Time(), filled()
    view = lines(seen, time, capsys)
    view.look()
    view.show()
    first = capsys.readouterr().out.splitlines()
    assert [line.split(" ", 1)[1] for line in first] == [
        "a/fine online seq 2, 0.0/s, missing 0: temperature 21.5",
        "b/gaps ? seq 4, 0.0/s, missing 2: n 4",
        "y offline",
        "z/pump offline",
    ]
    add(seen, "a/fine", 3)
    time.ns += 500_000_000
    view.look()
    view.show()
    assert capsys.readouterr().out == ""  # not twice within --every
    time.ns += 500_000_000
    view.look()
    view.show()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("a/fine online seq 3, 1.0/s, missing 0: n 3")
    seen.state("a", "", b"offline")
    view.end()
    assert "a/fine offline" in capsys.readouterr().out


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    view = lines(filled(), Time(), capsys, json=True)
    view.end()
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["agent"], one["device"], one["state"], one["seq"], one["missing"]) for one in said] == [
        ("a", "fine", "online", 2, 0),
        ("b", "gaps", "?", 4, 2),
        ("y", None, "offline", None, 0),
        ("z", "pump", "offline", None, 0),
    ]
    assert said[0]["fields"] == {"temperature": 21.5}


# ---- what is drawn


def drawn(seen: Sight, width: int, height: int, monkeypatch: pytest.MonkeyPatch, pages: int = 0) -> list[str]:
    monkeypatch.setattr(
        "rich.console.Console", lambda: Console(file=io.StringIO(), width=width, height=height, _environ={})
    )
    view = ScreenView(FACTS, seen, Time().clock())
    view.look()
    view.turn(pages)
    with view._console.capture() as capture:
        view._console.print(view._render(101.0))
    return capture.get().rstrip("\n").split("\n")


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 10), (200, 60), (20, 3)])
def test_it_fits_whatever_the_window(width: int, height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = filled()
    for number in range(100):
        add(seen, f"very-long-name-of-an-agent/and-device-{number}", 1, 3, text="y" * 300)
    screen = drawn(seen, width, height, monkeypatch)
    assert max(map(len, screen)) <= width
    assert len(screen) <= max(height, cli_watch_view.HEAD + 1)
    if width >= 80:
        assert "y " in screen[6]
        assert "offline" in screen[6]
        assert "4 agents" not in screen[1]
        assert "5 agents (2 offline), 103 devices (1 offline)" in screen[1]


def test_pages_turn_and_end_at_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = sight("outstation")
    for number in range(30):
        add(seen, f"a/d{number:02}", 1)
    assert "page 1 of 3" in drawn(seen, 80, 18, monkeypatch)[2]
    last = drawn(seen, 80, 18, monkeypatch, pages=7)
    assert "page 3 of 3" in last[2]
    assert last[6].startswith("a/d24 ")


def test_nothing_heard_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(sight("outstation"), 80, 24, monkeypatch)[-1] == "no agent has been heard of yet"


def test_text_of_a_device_moves_no_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = sight("outstation")
    add(seen, "a/d", 1, text="\x1b[2J\r\n[bold]markup[/bold]")
    (row,) = drawn(seen, 120, 24, monkeypatch)[6:]
    assert r'"\u001b[2J\r\n[bold]markup[/bold]"' in row


# ---- the command line


def test_filters_are_of_all_agents_or_of_one() -> None:
    settings = MqttSettings(urls=("mqtt://h",))
    options = WatchOptions(settings, "x", None, None, None, 1.0, "plain")
    assert options.filters == ("x/+/+/+", "x/+/availability", "x/+/status")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--url", "http://h"], "--url"),
        (["--url", "mqtt://h", "--every", "soon"], "--every"),
        (["--url", "mqtt://h", "--agent", "a/b"], "A-Z a-z 0-9 _ -"),
        (["-c", "/nowhere/outstation.toml"], "which broker?"),
        (["--username", "ann"], "--username belongs to --url"),
    ],
)
def test_a_wrong_command_line_is_status_2(arguments: list[str], said: str) -> None:
    result = CliRunner(env={"OUTSTATION_CONFIG": None}).invoke(cli, ["watch", *arguments], prog_name="outstation")
    assert result.exit_code == 2
    assert said in result.output
