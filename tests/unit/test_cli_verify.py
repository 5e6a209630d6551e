"""`outstation verify` without a broker: from counts to words and statuses, and what the command line asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from agent import cli_verify_command, cli_verify_view
from agent.cli import cli
from agent.cli_broker import broker_settings, in_options
from agent.cli_verify_seen import Connection, Seen, as_json, line, totals, verdict
from agent.cli_verify_view import Facts, PlainView, _Rate, span
from agent.clock import Clock, ClockSettings
from agent.mqtt_errors import from_code
from agent.mqtt_settings import MqttSettings, parse_url
from agent.tally import Tally


def seen(*, up: bool = True) -> Seen:
    seen = Seen(Tally(), Connection(persistent=False))
    if up:
        seen.connection.accepted(False)
    return seen


def add(seen: Seen, device: str, *seqs: int, **more: Any) -> None:
    for seq in seqs:
        payload = {"ts": "2026-11-24T00:37:00Z", "seq": seq, "fields": {"n": seq}, **more}
        seen.tally.add(f"outstation/{device}/telemetry", json.dumps(payload).encode())


def verify(*arguments: str) -> Result:
    return CliRunner(env={"OUTSTATION_CONFIG": None}).invoke(cli, ["verify", *arguments], prog_name="outstation")


# ---- what is proved


def test_a_proof_needs_readings_and_a_connection_and_nothing_lost() -> None:
    nothing = seen()
    assert (nothing.status(), verdict(nothing).split(":")[0]) == (66, "NOTHING PROVED")
    away = seen(up=False)
    add(away, "g/weather", 1)
    assert (away.status(), verdict(away).split(":")[0]) == (69, "NOT PROVED TO THE END")
    good = seen()
    add(good, "g/weather", 1, 2, 2)
    add(good, "g/weather", 100, resumed=True)
    text = (
        "PROVED: of 3 readings none is lost and none out of order; 1 came twice; 97 skipped or not heard prove nothing"
    )
    assert (good.status(), verdict(good)) == (0, text)


@pytest.mark.parametrize(
    ("seqs", "words"),
    [
        ([1, 3], "NOT PROVED: 1 lost"),
        ([1, 4, 3], "NOT PROVED: 1 lost, 1 out of order"),
        ([1, 2, 1], "NOT PROVED: 1 numbered from 1 again"),
    ],
)
def test_each_broken_promise_is_status_1(seqs: list[int], words: str) -> None:
    bad = seen(up=False)  # a loss is a loss, wherever the broker is
    for number, seq in enumerate(seqs):
        add(bad, "g/weather", seq, fields={"n": number})
    assert (bad.status(), verdict(bad)) == (1, words)
    assert as_json(bad)["status"] == 1


def test_another_reading_under_a_taken_number_is_status_1() -> None:
    bad = seen()
    add(bad, "g/weather", 1, 2)
    add(bad, "g/weather", 2, fields={"n": "another"})
    assert (bad.status(), verdict(bad)) == (1, "NOT PROVED: 1 under a number that was taken")


def test_devices_in_trouble_come_first() -> None:
    state = seen()
    add(state, "a/good", 1)
    add(state, "b/bad", 1, 3)
    assert [key for key, _ in state.devices()] == [("b", "bad"), ("a", "good")]
    key, device = state.devices()[0]
    assert line(key, device) == "b/bad: received 2 (seq 1..3), missing 1 (2), duplicates 0, out of order 0"
    assert totals(state) == "received 3 of 2 devices, missing 1, duplicates 0, out of order 0"
    assert json.loads(json.dumps(as_json(state)))["devices"][1]["missing"] == [[2, 2]]


def test_what_an_agent_says_of_itself_is_shown_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.cli_verify_seen.DEVICES", 1)
    state = seen()
    state.state("a", "", b"online")
    state.state("a", "d", b"\x1b[2J")
    state.state("b", "d", b"online")
    state.state("a", "", b"offline")
    assert state.states == {("a", ""): "offline", ("a", "d"): "?"}


def test_each_connection_says_what_it_means_for_the_proof() -> None:
    connection = Connection(persistent=True)
    assert connection.accepted(True) is False
    connection.lost("it broke")
    connection.lost("keep alive timeout")  # paho tells a loss by its keepalive twice
    assert connection.accepted(True) is False
    connection.lost("it broke")
    assert connection.accepted(False) is True
    assert [note.split(":")[0] for note in connection.notes] == [
        "the broker has kept this session since an earlier run",
        "the connection is lost (it broke); tried again every second",
        "connected again",
        "the connection is lost (it broke); tried again every second",
        "connected again",
    ]
    assert (connection.up, connection.connects, connection.gaps) == (True, 3, 1)


# ---- how it looks


class Time:
    """A clock that is moved by hand."""

    ns = 0

    def clock(self) -> Clock:
        return Clock(ClockSettings(trust="always"), mono_ns=lambda: self.ns, wall_now_ns=lambda: self.ns)


def test_plain_lines_tell_of_changes_and_endless_trouble_ever_less(capsys: pytest.CaptureFixture[str]) -> None:
    state, time = seen(), Time()
    view = PlainView(Facts("mqtt://h:1883", "outstation/+/+/telemetry", 3600.0), state, time.clock())
    view.start()
    for number in range(1, 101):
        add(state, "g/weather", 2 * number)
        view.look()
        view.show()
    view.look()
    view.show()
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["broker     mqtt://h:1883", "listening  outstation/+/+/telemetry"]
    assert lines[2] == "1970-01-01T00:00:00Z g/weather: the first reading has seq 2"
    assert lines[3] == "1970-01-01T00:00:00Z received 1 of 1 device, missing 0, duplicates 0, out of order 0"
    missing = [int(line.split("missing ")[1].split()[0]) for line in lines[4:]]
    assert missing == [1, 2, 4, 8, 16, 32, 64]
    time.ns = 3600 * 10**9
    view.end()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1970-01-01T01:00:00Z received 100 of 1 device, missing 99, duplicates 0, out of order 0"
    assert lines[-1] == "NOT PROVED: 99 lost"


def test_spans_and_rates_for_people() -> None:
    assert [span(s) for s in (0.04, 9.96, 59, 119, 121, 7199, 7200, 172_800)] == (
        ["0.0s", "10.0s", "59s", "119s", "2m", "119m", "2h", "2d"]
    )
    rate = _Rate()
    assert rate(0.0, 0) == 0.0
    assert [rate(0.25 * look, 5 * look) for look in range(1, 20)] == [20.0] * 19


def test_a_table_of_many_devices_shows_the_worst(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli_verify_view, "ROWS", 2)
    monkeypatch.setenv("COLUMNS", "100")
    state = seen()
    for number in range(3):
        add(state, f"g/good{number}", 1)
    add(state, "g/bad", 1, 9)
    state.state("g", "", b"offline")
    state.state("g", "bad", b"online")  # what it said last of its devices; its Will says more
    view = cli_verify_view.LiveView(Facts("mqtt://h:1883", "x", 1.0), state, Time().clock())
    view.look()
    view._console.print(view._live.get_renderable())
    text = capsys.readouterr().out
    assert text.index("g/bad") < text.index("g/good0")
    assert "g/good1" not in text
    assert "and 2 devices more, none of them worse" in text
    assert text[text.index("g/bad") :].split()[1] == "offline"


@pytest.mark.parametrize("width", [58, 72, 80, 100, 160])
def test_numbers_are_whole_however_narrow_the_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    state = seen()
    add(state, "greenhouse-1/weather", 1, 2, 2, 1_000_000)
    add(state, "greenhouse-1/weather", 2_000_000, resumed=True, clock="unsynced", fields={"temperature": 21.5})
    view = cli_verify_view.LiveView(Facts("mqtt://h:1883", "x", 1.0), state, Time().clock())
    view.look()
    view._console.print(view._live.get_renderable())
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= width
    row = next(line for line in text.splitlines() if line.startswith("greenho"))
    assert row.split()[1:7] == ["?", "4", "999997", "1", "0", "0.0s"]
    assert ("greenhouse-1/weather" in row) == (width >= 100)
    assert ("skipped" in row) == (width >= 72)
    assert ("temperature 21.5" in row) == (width >= 160)


# ---- what the command line asks for


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "say --url mqtt://host, or -c FILE: /etc/outstation/outstation.toml is not there"),
        (["-c", "/nowhere.toml"], "/nowhere.toml is not there"),
        (["--ca-file", "x"], "--ca-file belongs to --url"),
        (["--url", "http://h"], "--url: not the URL of a broker"),
        (
            ["--url", "mqtt://ann:s3cret@h"],
            "--url: no user name or password in a URL: use --username and --password-file",
        ),
        (["--url", "mqtt://h", "--password-env", "X"], "a password needs --username"),
        (["--url", "mqtt://h", "--username", "a", "--password-env", "="], "--password-env: "),
        (["--url", "mqtt://h", "--key-file", "k"], "--key-file needs --cert-file"),
        (["--url", "mqtt://h", "--agent", "a/b"], "the id of an agent is of A-Z a-z 0-9 _ -"),
        (["--url", "mqtt://h", "--base", "a/#"], "--base: not a topic"),
        (["--url", "mqtt://h", "--client-id", ""], "the name is empty"),
        (["--url", "mqtt://h", "--every", "soon"], "a duration is a number of seconds"),
        (["--url", "mqtt://h", "--seconds", "0"], "--seconds"),
    ],
)
def test_a_wrong_command_line_says_what_would_be_right(arguments: list[str], words: str) -> None:
    result = verify(*arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())
    assert "s3cret" not in result.output


def test_the_password_cannot_be_an_argument() -> None:
    names = {option for parameter in cli_verify_command.verify.params for option in parameter.opts}
    assert not {name for name in names if "pass" in name} - {"--password-file", "--password-env"}


def test_the_configuration_names_broker_and_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "outstation.toml"
    path.write_text('[agent]\nid = "greenhouse-1"\n[mqtt]\nurls = ["mqtt://a", "mqtt://b"]\nbase = "plant/1"\n')
    given: list[Any] = []
    monkeypatch.setattr("agent.cli_verify.main", lambda options: given.append(options) or 0)
    assert verify("-c", str(path)).exit_code == 0
    assert verify("-c", str(path), "--agent", "another", "--base", "lab", "--every", "1m").exit_code == 0
    assert verify("-c", str(path), "--url", "mqtt://c").exit_code == 0
    assert [options.filters[0] for options in given] == [
        "plant/1/greenhouse-1/+/telemetry",
        "lab/another/+/telemetry",
        "outstation/+/+/telemetry",
    ]
    assert [options.settings.urls for options in given] == [("mqtt://a", "mqtt://b")] * 2 + [("mqtt://c",)]
    assert [(options.every, options.show) for options in given] == [(10, "plain"), (60, "plain"), (10, "plain")]


def test_what_the_link_says_of_keys_is_said_of_options() -> None:
    error = from_code(0x87, "", parse_url("mqtt://h"), MqttSettings(), "verify-1")
    assert "check --username, the password" in in_options(str(error))
    assert in_options("check the name in mqtt.urls; set mqtt.ca_file") == "check the name in --url; set --ca-file"


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(click.UsageError, match=r"--url: .*; --password-env: ") as caught:
        broker_settings("nonsense", username="a", password_env="1")
    assert "pydantic" not in str(caught.value)


def test_by_hand_the_password_is_the_one_that_the_service_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, other = tmp_path / "outstation.toml", tmp_path / "other.toml"
    for path in (file, other):
        path.write_text('[mqtt]\nurls = ["mqtt://a"]\nusername = "ann"\n')
    monkeypatch.setattr("agent.cli_broker.DEFAULT_FILE", str(file))
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)

    def kept(path: Path) -> Path | None:
        return cli_verify_command.configured(str(path), {}).mqtt.password_file

    assert kept(file) is None
    password = tmp_path / "mqtt-password"
    password.write_text("s3cret\n")
    assert kept(file) == password
    assert kept(other) is None  # its broker may be another one
    file.write_text(file.read_text() + 'password_env = "SECRET"\n')
    assert kept(file) is None
