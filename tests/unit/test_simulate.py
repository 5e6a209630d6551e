"""`outstation simulate` without a broker: what it counts, what it says, what it refuses."""

from __future__ import annotations

import io
import json
import resource
from collections import Counter

import pytest
from click.testing import CliRunner

from agent import simulate
from agent.cli import cli
from agent.simulate import SPARE_FILES, SimulateError, allow
from agent.simulate_count import Sums, Tally, Times
from agent.simulate_view import Facts, Outcome, View, progress, table

FACTS = Facts(("mqtt://a:1883",), agents=10, devices=4, rate=0.5, ramp=2.0, qos=1)


def outcome(**last: int) -> Outcome:
    tally = Tally()
    for seconds in (0.001, 0.002, 3.0):
        tally.connecting.add(seconds)
    begin = Sums(at=10.0, cpu_s=1.0, memory=50_000_000, started=10, connected=10, made=20, sent=20, acknowledged=20)
    end = Sums(at=20.0, cpu_s=2.0, memory=60_000_000, started=10, connected=9, made=220, sent=219, acknowledged=215)
    after = Sums(at=21.0, cpu_s=2.1, memory=60_000_000, started=10, made=220, sent=220, acknowledged=220)
    for name, value in last.items():
        setattr(after, name, value)
    return Outcome(FACTS, tally, Sums(9.0, 0.5, 40_000_000), begin, end, after, lag=0.02, unswept=0)


# ---- what is counted


def test_a_quantile_is_at_most_a_class_too_long() -> None:
    times = Times()
    values = [0.001 * n for n in range(1, 1001)]
    for value in values:
        times.add(value)
    for share in (0.01, 0.5, 0.99, 1.0):
        true = values[max(0, round(share * 1000) - 1)]
        assert true <= times.quantile(share) <= true * 1.045
    assert times.longest == 1.0


def test_times_of_nothing_and_of_no_time() -> None:
    times = Times()
    assert times.quantile(0.5) == 0.0
    times.add(0.0)
    assert times.quantile(0.99) == 0.0
    assert times.count == 1


def test_what_was_never_acknowledged_is_lost() -> None:
    assert outcome().lost == 0
    assert outcome(acknowledged=217, dropped=1, refused=1).lost == 3  # one of them waited to the end


def test_rates_are_of_the_time_when_all_were_at_work() -> None:
    found = outcome().as_json()
    assert (found["made_rate"], found["sent_rate"], found["acknowledged_rate"]) == (20.0, 19.9, 19.5)
    assert (found["cpu_cores"], found["cpu_each_s_per_s"]) == (0.1, 0.01)
    assert found["memory_each_bytes"] == 2_000_000
    assert found["connected"] == 9
    json.dumps(found)


# ---- what is said


def test_the_table_says_what_went_wrong_and_nothing_else() -> None:
    text = "\n".join(table(outcome()))
    assert "9 of 10" in text
    assert "19.9 of 20 readings/s wanted, over 10.0 s" in text
    assert "220 made, 220 acknowledged, 0 lost" in text
    assert "failures" not in text
    assert "back after" not in text
    bad = outcome(acknowledged=215, dropped=3, refused=1, failures=7)
    bad.last.reasons = Counter({"refused": 4, "timeout": 1})
    bad.tally.away.add(4.2)
    text = "\n".join(table(bad))
    assert "5 lost (3 dropped, 1 refused)" in text
    assert "7; agents by the last reason: refused 4, timeout 1" in text
    assert "1 times: p50 4.20 s" in text


def test_a_line_moves_on_a_terminal_and_only_there() -> None:
    before, now = outcome().begin, outcome().end
    text = progress(FACTS, before, now, 9.0)
    assert text.startswith("  11 s  ")
    assert "9 of 10 connected  20/s sent  20/s acknowledged  5 waiting" in text
    pipe, terminal = io.StringIO(), io.StringIO()
    View(pipe, moving=False).show(text)
    assert pipe.getvalue() == text + "\n"
    view = View(terminal, moving=True)
    view.show(text)
    view.say("end")
    assert terminal.getvalue().startswith("\r")
    assert terminal.getvalue().endswith("\x1b[K\nend\n")


# ---- what is refused


def test_the_limit_of_open_files_is_raised_where_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: set_to.append(limits))
    allow(100, 1)
    assert set_to == []
    allow(1000, 1)
    assert set_to == [(1000 + SPARE_FILES, 4096)]
    with pytest.raises(SimulateError, match=r"5000 agents need 5064 open files.*4096.*ulimit -Hn 5064.*LimitNOFILE="):
        allow(5000, 1)


def test_more_agents_than_local_ports_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1 << 20, 1 << 20))
    with pytest.raises(SimulateError, match="ip_local_port_range"):
        allow(70_000, 1)
    allow(70_000, 3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--url"),
        (["--url", "http://h"], "--url"),
        (["--url", "mqtt://h", "--url", "mqtt://h"], "twice"),
        (["--url", "mqtt://h", "--agents", "0"], "--agents"),
        (["--url", "mqtt://h", "--rate", "0"], "--rate"),
        (["--url", "mqtt://h", "--duration", "soon"], "--duration"),
        (["--url", "mqtt://h", "--duration", "0s"], "0.1 seconds at least"),
        (["--url", "mqtt://h", "--ramp", "-1"], "--ramp"),
        (["--url", "mqtt://h", "--name", "a/b"], "A-Z a-z 0-9 _ -"),
        (["--url", "mqtt://h", "--base", "a/+"], "--base"),
        (["--url", "mqtt://h", "--key-file", "k"], "cert-file"),
    ],
)
def test_a_wrong_command_line_is_status_2(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(cli, ["simulate", *arguments], prog_name="outstation")
    assert result.exit_code == 2
    assert said in result.output


def test_a_machine_that_does_not_allow_it_is_status_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate.resource, "getrlimit", lambda _: (64, 64))
    result = CliRunner().invoke(cli, ["simulate", "--url", "mqtt://127.0.0.1:1"], prog_name="outstation")
    assert result.exit_code == 2
    assert "open files" in result.output
