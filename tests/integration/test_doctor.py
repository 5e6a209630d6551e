"""`outstation doctor`: each fault that is planted is found and named, and a sound installation has none."""

from __future__ import annotations

import grp
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agent import cli_doctor_checks, cli_doctor_system
from agent.cli import cli
from agent.cli_doctor_system import Unit, clock, disk, may_run, rights, systemd, unit_of, wear
from agent.clock import BUILT_NS, Kernel
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
    assert (status, list(found)) == (78, ["config"])
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


FAILED = "LoadState=loaded\nActiveState=failed\nUnitFileState=enabled\nResult={}\nExecMainStatus={}\n"


@pytest.mark.parametrize(
    ("shown", "level", "said"),
    [
        ("LoadState=masked\nActiveState=inactive\nUnitFileState=masked\n", "problem", "masked"),
        ("LoadState=not-found\nActiveState=inactive\n", "warning", "not installed"),
        ("LoadState=bad-setting\n", "problem", "cannot be loaded (bad-setting)"),
        (FAILED.format("exit-code", 78), "problem", "its configuration was wrong"),
        (FAILED.format("watchdog", 6), "problem", "has failed (watchdog, status 6)"),
        ("LoadState=loaded\nActiveState=activating\nResult=exit-code\nExecMainStatus=70\n", "problem", "again"),
        ("LoadState=loaded\nActiveState=inactive\nUnitFileState=enabled\n", "warning", "is inactive"),
        ("LoadState=loaded\nActiveState=active\nUnitFileState=disabled\n", "warning", "start at boot"),
        (
            "LoadState=loaded\nActiveState=active\nSupplementaryGroups=no-such-group\n",
            "problem",
            "wants the group no-such-group",
        ),
        ("LoadState=loaded\nActiveState=active\nUnitFileState=enabled\n", "ok", "is active"),
    ],
)
def test_what_systemd_says(shown: str, level: str, said: str) -> None:
    last = list(systemd(unit_of(shown)))[-1]
    assert last.level == level
    assert said in last.text
    assert bool(last.remedy) == (level != "ok")


def test_without_systemd_nothing_is_said() -> None:
    assert not list(systemd(Unit()))


def test_a_device_that_the_service_may_not_open(tmp_path: Path) -> None:
    """Whoever asks is root here, and may: the service is another."""
    node = tmp_path / "gpiochip0"
    node.touch()
    dialout = grp.getgrnam("dialout").gr_gid
    service = Unit(load="loaded", dynamic=True, groups=("dialout",))
    node.chmod(0o600)
    (found,) = rights("relays", str(node), service)
    assert (found.check, found.level) == ("rights", "problem")
    assert 'GROUP="dialout"' in found.remedy
    node.chmod(0o660)
    if os.geteuid() == 0:
        os.chown(node, 0, dialout)
        assert not list(rights("relays", str(node), service))
        (found,) = rights("relays", str(node), Unit(load="loaded", dynamic=True))
        assert "SupplementaryGroups=dialout" in found.remedy
        (found,) = rights("relays", str(node), Unit(load="loaded", user="nobody"))
        assert "may not open" in found.text
        assert not list(rights("relays", str(node), Unit(load="loaded", user="root")))
    assert not list(rights("relays", str(node), Unit()))


def test_a_gpio_chip_that_is_not_there(tmp_path: Path, broker: Broker) -> None:
    device = '[[device]]\nname = "r"\ndriver = "gpio"\nchip = "/dev/gpiochip99"\n[device.inputs.door]\nline = 1\n'
    status, found = doctor(tmp_path, broker, device, "--offline")
    assert status == 1
    assert "no such GPIO chip" in found["port"]


def test_an_agent_that_is_thrown_out_again_and_again(
    tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = {"link": {"last_error": {"reason": "taken_over", "text": "session taken over"}}}
    monkeypatch.setattr(cli_doctor_checks, "ask", lambda _config, _op: report)
    status, found = doctor(tmp_path, broker, "", "--offline")
    assert (status, found) == (1, {"identity": "session taken over"})


def test_a_disk_that_is_read_only_or_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [one.level for one in disk(tmp_path / "outbox.db")] == ["ok"]
    assert [one.text for one in disk(Path("/sys/outbox.db")) if "read-only" in one.text] or not (
        os.statvfs("/sys").f_flag & os.ST_RDONLY
    )
    monkeypatch.setattr(cli_doctor_system, "FULL", 1 << 62)
    assert [one.level for one in disk(tmp_path / "outbox.db")] == ["problem"]
    real = os.statvfs(tmp_path)

    class Space:
        f_flag, f_files, f_favail = real.f_flag, 100, 0

    monkeypatch.setattr(os, "statvfs", lambda _path: Space)
    assert "no inode is free" in next(disk(tmp_path / "outbox.db")).text
    Space.f_flag |= os.ST_RDONLY
    assert ["read-only" in one.text for one in disk(tmp_path / "outbox.db")] == [True]


def test_a_clock_that_is_not_synchronised_or_cannot_be_right() -> None:
    assert [one.level for one in clock(Kernel(lambda _: 5), BUILT_NS)] == ["warning"]
    assert [one.level for one in clock(Kernel(lambda _: 0), BUILT_NS)] == ["ok"]
    (found,) = clock(Kernel(lambda _: 0), 0)
    assert found.level == "problem"
    assert "1970-01-01T00:00:00Z" in found.text


@pytest.mark.parametrize(
    ("life", "reserve", "found"),
    [
        ("0x01 0x02\n", "0x01\n", [("ok", "20 %")]),
        ("0x01 0x0b\n", None, [("warning", "100 %")]),
        ("0x01 0x01\n", "0x03\n", [("warning", "90 % of its reserved blocks")]),
        ("0x00 0x00\n", "0x00\n", []),
        ("?", None, []),
        (None, None, []),
    ],
)
def test_a_worn_emmc(tmp_path: Path, life: str | None, reserve: str | None, found: list[tuple[str, str]]) -> None:
    card = tmp_path / "block/mmcblk0/device"
    card.mkdir(parents=True)
    for name, said in (("life_time", life), ("pre_eol_info", reserve)):
        if said is not None:
            (card / name).write_text(said)
    worn = list(wear(tmp_path))
    assert [one.level for one in worn] == [level for level, _ in found]
    assert all(text in one.text for one, (_, text) in zip(worn, found, strict=True))
