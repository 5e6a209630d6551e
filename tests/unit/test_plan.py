"""What lies between two configurations: `outstation plan`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agent.cli import cli
from agent.cli_config import read_config
from agent.cli_control_text import planned
from agent.homeassistant import Kind
from agent.plan import NOTHING, changes_something, compare, side

HOST = '[[device]]\nname = "host"\ndriver = "host"\n'
LINES = '[[device]]\nname = "w"\ndriver = "lines"\nport = "/dev/ttyW"\nformat = "json"\n'
HA = '[homeassistant]\ndiscovery = "on"\n'
KINDS: dict[str, dict[str, Kind]] = {"w": {"temp": "number"}}


def read(folder: Path, text: str, name: str = "a.toml") -> Any:
    file = folder / name
    file.write_text(f'[agent]\nid = "g"\n[outbox]\npath = "{folder}/outbox.db"\n{text}')
    return read_config(str(file))


def between(
    folder: Path, old: str, new: str, before: dict[str, Any] | None = None, after: dict[str, Any] | None = None
) -> dict[str, Any]:
    a, b = side(read(folder, old), before), side(read(folder, new), after)
    return compare(json.loads(json.dumps(a)), b)  # as it comes through the socket


def test_nothing_lies_between_a_file_and_itself(tmp_path: Path) -> None:
    plan = between(tmp_path, HA + HOST + LINES, HA + HOST + LINES, KINDS, KINDS)
    assert not changes_something(plan)
    assert list(planned(plan)) == ["devices: 0 to come, 0 to go, 0 to change, 2 to stay"]


def test_all_is_to_come_where_there_was_nothing(tmp_path: Path) -> None:
    plan = compare(NOTHING, side(read(tmp_path, HA + LINES)))
    said = list(planned(plan))
    assert "    + topic outstation/g/status" in said
    assert "    + entity Uptime (sensor, s, duration)" in said
    assert "+ device w (lines)" in said
    assert "    + topic outstation/g/w/telemetry" in said
    assert "    + topic homeassistant/device/outstation_g_w/config" in said
    assert said[-1] == "devices: 1 to come, 0 to go, 0 to change, 0 to stay"


def test_a_device_that_goes_takes_its_topics_and_entities_along(tmp_path: Path) -> None:
    plan = between(tmp_path, HA + HOST + LINES, HA + HOST, KINDS, KINDS)
    assert plan["devices"]["host"]["action"] == "stay"
    assert list(planned(plan)) == [
        "- device w (lines)",
        "    - topic outstation/g/w/availability",
        "    - topic outstation/g/w/telemetry",
        "    - topic homeassistant/device/outstation_g_w/config",
        "    - entity temp (sensor)",
        "devices: 0 to come, 1 to go, 0 to change, 1 to stay",
    ]


def test_a_change_is_told_by_key_with_both_values(tmp_path: Path) -> None:
    plan = between(tmp_path, LINES, LINES + "baudrate = 19200\n" + "[device.channels.temp]\nunit = '°C'\n")
    assert plan["devices"]["w"]["action"] == "change"
    said = list(planned(plan))
    assert said[0] == "~ device w (lines)"
    assert "    ~ baudrate = 9600 -> 19200" in said
    assert not plan["agent"]["keys"]


def test_an_entity_that_stays_may_become_another(tmp_path: Path) -> None:
    text = HA + LINES + "[device.channels.temp]\nunit = "
    plan = between(tmp_path, text + "'°C'\n", text + "'K'\n", KINDS, KINDS)
    assert "    ~ entity temp (sensor, °C -> sensor, K)" in list(planned(plan))


def test_what_waits_for_a_restart_is_marked(tmp_path: Path) -> None:
    plan = between(tmp_path, LINES, "[mqtt]\nqos = 0\n" + LINES)
    assert list(planned(plan)) == [
        "! agent",
        "    ! mqtt.qos = 1 -> 0",
        "devices: 0 to come, 0 to go, 0 to change, 1 to stay; "
        "1 key outside of devices would wait for a restart of the agent",
    ]
    assert changes_something(plan)


def test_values_have_a_topic_a_channel_and_what_the_wire_names_is_remembered(tmp_path: Path) -> None:
    values = '[mqtt]\nformat = "values"\n'
    plan = between(tmp_path, values + LINES, values, KINDS, KINDS)
    assert "outstation/g/w/temp" in plan["devices"]["w"]["topics"]["go"]


def test_a_secret_that_changes_is_seen_and_not_told(tmp_path: Path) -> None:
    exec_ = '[[device]]\nname = "e"\ndriver = "exec"\ncommand = ["/bin/true"]\nformat = "json"\ninterval = "5s"\n'
    old, new = (f'{exec_}environment = {{ API_TOKEN = "{word}" }}\n' for word in ("s3cret1", "s3cret2"))
    plan = between(tmp_path, old, new)
    assert "s3cret" not in json.dumps(plan)
    assert "s3cret" not in json.dumps(side(read(tmp_path, old)))
    assert "    ~ environment is another" in list(planned(plan))


# ---- the command


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["plan", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


def test_against_another_file_with_an_exit_status_and_as_json(tmp_path: Path) -> None:
    read(tmp_path, HOST)
    read(tmp_path, HOST + LINES, "b.toml")
    a, b = str(tmp_path / "a.toml"), str(tmp_path / "b.toml")
    assert run("-c", b, "--against", a)[0] == 0
    status, said = run("-c", b, "--against", a, "--exit-code")
    assert status == 1
    assert said.splitlines()[:2] == [f"against {a}", "+ device w (lines)"]
    assert run("-c", a, "--against", a, "--exit-code")[0] == 0
    status, said = run("-c", a, "--against", b, "--json")
    assert status == 0
    assert json.loads(said)["devices"]["w"]["action"] == "go"


@pytest.mark.parametrize("place", ["-c", "--against"])
def test_a_wrong_file_has_status_78(tmp_path: Path, place: str) -> None:
    read(tmp_path, HOST)
    (tmp_path / "b.toml").write_text("[mqtt]\nqos = 7\n")
    files = {"-c": str(tmp_path / "a.toml"), "--against": str(tmp_path / "a.toml"), place: str(tmp_path / "b.toml")}
    status, said = run(*(word for pair in files.items() for word in pair))
    assert status == 78
    assert "mqtt.qos = 7" in said


def test_where_no_agent_runs_all_is_to_come(tmp_path: Path) -> None:
    read(tmp_path, HOST)
    status, said = run("-c", str(tmp_path / "a.toml"), "--exit-code")
    assert status == 1
    assert said.startswith("against nothing: no agent runs with this outbox")
    assert "+ device host (host)" in said
