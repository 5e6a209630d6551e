"""`outstation doctor`: each fault that is planted is found and named, and a sound installation has none."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agent import cli_doctor_checks
from agent.cli import cli
from agent.cli_doctor_checks import clock, disk, may_run, systemd, wear
from agent.clock import Kernel
from agent.testing import Broker, PtyPort, Subscriber


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker("mosquitto", username="ann", password="s3cret") as broker:
        yield broker


def doctor(folder: Path, broker: Broker, device: str = "", *arguments: str, **mqtt: Any) -> tuple[int, dict[str, str]]:
    """Exit status, and what is a problem: check and text."""
    password = folder / "password"
    password.write_text("s3cret")
    password.chmod(0o600)
    settings = {"urls": [broker.url], "username": "ann", "password_file": str(password), **mqtt}
    text = "\n".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())
    file = folder / "outstation.toml"
    file.write_text(f'[agent]\nid = "g"\n[outbox]\npath = "{folder}/outbox.db"\n[mqtt]\n{text}\n{device}')
    result = CliRunner().invoke(cli, ["doctor", "-c", str(file), "--json", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "s3cret" not in result.output
    said = json.loads(result.output)
    problems = [one for one in said["findings"] if one["level"] == "problem"]
    assert all(one["remedy"] for one in problems)
    assert said["problems"] == len(problems)
    return result.exit_code, {one["check"]: one["text"] for one in problems}


def serial(port: str) -> str:
    return f'[[device]]\nname = "w"\ndriver = "lines"\nformat = "json"\nport = "{port}"\n'


def test_a_sound_one_has_no_problem(tmp_path: Path, broker: Broker) -> None:
    assert doctor(tmp_path, broker) == (0, {})


def test_a_wrong_configuration(tmp_path: Path, broker: Broker) -> None:
    status, found = doctor(tmp_path, broker, "[nothing]\n")
    assert (status, list(found)) == (1, ["config"])
    assert "nothing" in found["config"]


def test_a_port_that_is_not_there(tmp_path: Path, broker: Broker) -> None:
    status, found = doctor(tmp_path, broker, serial("/dev/ttyNOWHERE"), "--offline")
    assert (status, found) == (1, {"port": "w: /dev/ttyNOWHERE does not exist"})


def test_a_port_that_another_has_open(tmp_path: Path, broker: Broker) -> None:
    with PtyPort() as port:
        held = os.open(port.path, os.O_RDWR | os.O_NOCTTY)
        status, found = doctor(tmp_path, broker, serial(port.path), "--offline")
        os.close(held)
    assert status == 1
    assert "is in use by " in found["port"]
    assert str(os.getpid()) in found["port"]


@pytest.mark.parametrize(
    ("mqtt", "said"),
    [
        ({"urls": ["mqtt://nowhere.invalid"]}, "nowhere.invalid"),
        ({"urls": ["mqtt://127.0.0.1:1"]}, "127.0.0.1:1 refuses the connection"),
        ({"username": "eve"}, "eve"),
        ({"password_file": "/nowhere/password"}, "/nowhere/password"),
    ],
)
def test_a_broker_without_a_name_or_a_port_or_that_refuses(
    tmp_path: Path, broker: Broker, mqtt: dict[str, Any], said: str
) -> None:
    status, found = doctor(tmp_path, broker, **mqtt)
    assert (status, list(found)) == (1, ["broker"])
    assert said in found["broker"]
    assert "does not come back" not in found["broker"]


def test_a_broker_without_tls_and_authorities_that_are_not_there(tmp_path: Path, broker: Broker) -> None:
    url = f"mqtts://127.0.0.1:{broker.port}"
    for mqtt, said in (({}, "TLS"), ({"ca_file": "/nowhere/ca.pem"}, "/nowhere/ca.pem")):
        status, found = doctor(tmp_path, broker, urls=[url], **mqtt)
        assert (status, list(found)) == (1, ["broker"])
        assert said in found["broker"]


def test_a_broker_that_passes_nothing_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_doctor_checks, "ROUND_TRIP", 0.5)  # it never comes
    acl = tmp_path / "acl"
    acl.write_text("user ann\ntopic readwrite outstation/g/availability\n")
    acl.chmod(0o644)
    with Broker("mosquitto", username="ann", password="s3cret", config=f"acl_file {acl}") as broker:
        status, found = doctor(tmp_path, broker)
    assert (status, list(found)) == (1, ["broker"])
    assert "a message to outstation/g/doctor does not come back" in found["broker"]


def test_an_id_that_is_online_elsewhere(tmp_path: Path, broker: Broker) -> None:
    other = Subscriber(broker.url, "none", username="ann", password="s3cret").start()
    other.publish("outstation/g/availability", b"online", retain=True)
    status, found = doctor(tmp_path, broker)
    other.publish("outstation/g/availability", b"", retain=True)
    other.close()
    assert (status, list(found)) == (1, ["identity"])
    assert "an agent g is online" in found["identity"]


def test_an_agent_of_our_own_is_no_other(tmp_path: Path) -> None:
    lock = tmp_path / "outbox.db.lock"
    assert not may_run(lock, "inactive")
    assert may_run(lock, "active")
    lock.touch()
    assert not may_run(lock, "")
    with lock.open("w"):
        assert may_run(lock, "")


@pytest.mark.parametrize(("state", "levels"), [("", []), ("active", ["ok"]), ("failed", ["warning"])])
def test_what_systemd_says(state: str, levels: list[str]) -> None:
    assert [one.level for one in systemd(state)] == levels


def test_a_full_disk_a_clock_and_a_worn_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [one.level for one in disk(tmp_path / "outbox.db")] == ["ok"]
    monkeypatch.setattr(cli_doctor_checks, "FULL", 1 << 62)
    assert [one.level for one in disk(tmp_path / "outbox.db")] == ["problem"]
    assert [one.level for one in clock(Kernel(lambda _: 5))] == ["warning"]
    card = tmp_path / "block/mmcblk0/device"
    card.mkdir(parents=True)
    for said, levels in (("0x01 0x02\n", ["ok"]), ("0x01 0x0b\n", ["warning"]), ("0x00 0x00\n", []), ("?", [])):
        (card / "life_time").write_text(said)
        assert [one.level for one in wear(tmp_path)] == levels
