"""`outstation init`: what it asks, what it writes, and what it leaves alone."""

from __future__ import annotations

import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from agent import cli_init_file
from agent.cli import cli
from agent.cli_config import read_config
from agent.cli_probing import Listener
from agent.ports_list import SerialDevice
from agent.recognise import Guess


def init(folder: Path, *arguments: str, answers: str | None = None, monkeypatch: Any = None) -> Any:
    if answers is not None:
        terminal = SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True))
        monkeypatch.setattr("agent.cli_init.sys", terminal)
    return CliRunner().invoke(cli, ["init", "-o", str(folder / "my.toml"), *arguments], input=answers)


@pytest.fixture(autouse=True)
def no_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.ports_list.serial_devices", list)


def test_without_questions_it_writes_what_check_accepts(tmp_path: Path) -> None:
    result = init(tmp_path, "--yes", "--id", "box", "--url", "mqtts://broker.example", "--discovery")
    assert result.exit_code == 0, result.output
    config = read_config(str(tmp_path / "my.toml"))
    assert (config.agent.id, [str(url) for url in config.mqtt.urls]) == ("box", ["mqtts://broker.example"])
    assert config.homeassistant.discovery == "on"
    assert [device.config.name for device in config.devices] == ["host"]
    assert CliRunner().invoke(cli, ["check", "-c", str(tmp_path / "my.toml")]).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["my.toml"]


def test_the_file_may_be_named_as_in_all_other_commands(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["init", "-c", str(tmp_path / "my.toml"), "--yes"])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "my.toml").exists()


def test_the_commented_device_is_one(tmp_path: Path) -> None:
    assert init(tmp_path, "--yes", "--no-host").exit_code == 0
    file = tmp_path / "my.toml"
    text = file.read_text()
    assert not read_config(str(file)).devices
    file.write_text(text.replace("#[[", "[[").replace("\n#", "\n").replace("\n ", "\n# "))
    assert [device.config.name for device in read_config(str(file)).devices] == ["weather"]


def test_what_is_asked_is_asked_again_where_it_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "green house\nbox\nhttp://x\nmqtt://b\nann\ns3cret\ny\nn\n"
    result = init(tmp_path, answers=said, monkeypatch=monkeypatch)
    assert result.exit_code == 0, result.output
    assert result.output.count("Name of this agent") == 2
    assert result.output.count("Broker [") == 2
    assert "s3cret" not in result.output
    assert "s3cret" not in (tmp_path / "my.toml").read_text()
    config = read_config(str(tmp_path / "my.toml"))
    assert (config.agent.id, config.mqtt.username, config.homeassistant.discovery) == ("box", "ann", "on")
    assert not config.devices
    password = config.mqtt.password_file
    assert password == tmp_path / "mqtt-password"
    assert config.outbox.path is None
    assert password.read_text() == "s3cret\n"
    assert stat.S_IMODE(password.stat().st_mode) == 0o600


def test_the_service_gets_its_password_as_a_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_init_file, "DEFAULT_FILE", str(tmp_path / "my.toml"))
    assert init(tmp_path, answers="box\nmqtt://b\nann\ns3cret\nn\nn\n", monkeypatch=monkeypatch).exit_code == 0
    config = read_config(str(tmp_path / "my.toml"))
    assert config.mqtt.password_file is None
    assert str(config.outbox.path) == "/var/lib/outstation/outbox.db"  # a shell does not know $STATE_DIRECTORY
    assert (tmp_path / "mqtt-password").read_text() == "s3cret\n"


def test_what_is_there_is_not_touched_without_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "my.toml"
    file.write_text("mine")
    result = init(tmp_path, "--yes")
    assert (result.exit_code, file.read_text()) == (2, "mine")
    assert "--force" in result.output
    assert init(tmp_path, "--yes", "--force").exit_code == 0
    assert "[agent]" in file.read_text()
    file.unlink()
    (tmp_path / "mqtt-password").write_text("mine")
    result = init(tmp_path, answers="box\nmqtt://b\nann\ns3cret\nn\nn\n", monkeypatch=monkeypatch)
    assert result.exit_code == 2
    assert not file.exists()
    assert (tmp_path / "mqtt-password").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--yes"),
        (["--yes", "--url", "http://x"], "--url"),
        (["--yes", "--id", "a b"], "--id"),
        (["--yes", "--url", "mqtt://ann:s3cret@x"], "--password-file"),
        (["--yes", "--password-env", "X"], "username"),
        (["--yes", "--port", "usb:zz"], "usb:"),
    ],
)
def test_wrong_options(tmp_path: Path, arguments: list[str], said: str) -> None:
    result = init(tmp_path, *arguments)
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert "s3cret" not in result.output
    assert not list(tmp_path.iterdir())


def test_a_drop_in_that_it_would_collide_with(tmp_path: Path) -> None:
    drop_ins = tmp_path / "outstation.d"
    drop_ins.mkdir()
    (drop_ins / "host.toml").write_text('[[device]]\nname = "host"\ndriver = "host"\n')
    result = init(tmp_path, "--yes")
    assert result.exit_code == 78
    assert "a device of that name" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["outstation.d"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = init(tmp_path / "file", "--yes")
    assert result.exit_code == 74, result.output
    assert "cannot be written" in result.output


def test_what_is_heard_on_a_port_becomes_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = SerialDevice("/dev/ttyUSB7", "ftdi_sio", None, ("/dev/serial/by-id/usb-x",))
    listeners = []
    for port, guess in (("/dev/ttyUSB7", Guess("JSON", "lines", 3, {"format": "json"}, "host")), ("/dev/ttyS9", None)):
        listener = Listener(port, None, lines=[], seconds=1, active=False, done=lambda: None)  # type: ignore[arg-type]
        listener.guess, listener.line = guess, (19_200, 8, "none")
        listeners.append(listener)
    monkeypatch.setattr("agent.ports_list.serial_devices", lambda: [here])
    monkeypatch.setattr("agent.ports_errors.holders", lambda _path: [])
    monkeypatch.setattr("agent.cli_probing.holders", lambda _path: [])
    monkeypatch.setattr(cli_init_file, "heard", lambda ports, _seconds: listeners if ports == ("/dev/ttyUSB7",) else [])
    result = init(tmp_path, answers="box\nmqtt://b\n\nn\ny\ny\n", monkeypatch=monkeypatch)
    assert result.exit_code == 0, result.output
    assert "not recognised" in result.output
    host, device = (device.config for device in read_config(str(tmp_path / "my.toml")).devices)
    assert (host.name, device.name) == ("host", "host_2")
    assert (device.port, device.baudrate) == ("/dev/serial/by-id/usb-x", 19_200)  # type: ignore[attr-defined]
