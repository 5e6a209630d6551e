"""`outstation install-service`: what it writes, for which configuration, and when it refuses."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent import cli_install_service as service
from agent.cli import cli
from agent.cli_config import read_config
from agent.config import Config

HEAD = '[mqtt]\nurls = ["mqtt://127.0.0.1"]\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it writes instead of /etc; no package, no user of it, a root who has not started systemd."""
    monkeypatch.setattr(service, "FOLDER", tmp_path / "system")
    monkeypatch.setattr(service, "DROP_IN", tmp_path / "system" / "outstation.service.d" / "50-configured.conf")
    monkeypatch.setattr(service, "PACKAGED", tmp_path / "packaged.service")
    monkeypatch.setattr(service, "HIDDEN", ("/home", "/root"))
    monkeypatch.setattr(service, "program_path", lambda: "/opt/pipx/bin/outstation")
    monkeypatch.setattr(service, "groups", lambda: ["dialout"])
    monkeypatch.setattr(service, "reload_units", lambda: None)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("sys.prefix", "/opt/pipx/venvs/outstation")
    return tmp_path / "system"


def config(tmp_path: Path, text: str) -> tuple[Path, Config]:
    file = tmp_path / "outstation.toml"
    file.write_text(HEAD + text)
    return file, read_config(str(file))


def install(file: Path, *options: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["install-service", "-c", str(file), *options])
    return done.exit_code, done.output


def device(number: int, port: str, driver: str = "lines") -> str:
    return f'[[device]]\nname = "d{number}"\ndriver = "{driver}"\nport = "{port}"\nformat = "json"\n'


@pytest.mark.parametrize(
    ("port", "classes"),
    [
        ("/dev/ttyUSB3", ["ttyUSB"]),
        ("/dev/ttyAMA0", ["ttyAMA"]),
        ("/dev/serial/by-id/usb-FTDI", ["ttyUSB", "ttyACM"]),
        ("usb:0403:6001", ["ttyUSB", "ttyACM"]),
        ("/dev/weather", ["ttyS", "ttyAMA", "ttyUSB", "ttyACM"]),  # a link that is not there now
        ("socket://10.0.0.7:4001", []),
    ],
)
def test_a_port_opens_the_classes_that_it_may_turn_out_to_be(tmp_path: Path, port: str, classes: list[str]) -> None:
    _, found = config(tmp_path, device(0, port))
    assert list(service.classes(found)) == classes


def test_gpio_and_a_host_alone(tmp_path: Path) -> None:
    _, found = config(tmp_path, '[[device]]\nname = "host"\ndriver = "host"\n')
    assert service.drop_in(found, "f.toml", []).splitlines()[1:] == ["[Service]", "DeviceAllow="]
    gpio = '[[device]]\nname = "io"\ndriver = "gpio"\nchip = "gpiochip0"\n[device.inputs.door]\nline = 17\n'
    _, found = config(tmp_path, gpio)
    assert "DeviceAllow=char-gpiochip rw" in service.drop_in(found, "f.toml", [])


def test_it_writes_unit_and_drop_in_once(folder: Path, tmp_path: Path) -> None:
    file, _ = config(tmp_path, device(0, "/dev/ttyUSB0"))
    status, said = install(file)
    unit, drop_in = folder / "outstation.service", folder / "outstation.service.d" / "50-configured.conf"
    assert (status, said.splitlines()[:2]) == (0, [f"written {unit}", f"written {drop_in}"])
    assert f"ExecStart=/opt/pipx/bin/outstation run -c {file}\n" in unit.read_text()
    assert "SupplementaryGroups=dialout\nDeviceAllow=\nDeviceAllow=char-ttyUSB rw\n" in drop_in.read_text()
    assert unit.stat().st_mode & 0o777 == 0o644
    assert [line.split()[0] for line in install(file)[1].splitlines()[:2]] == ["unchanged", "unchanged"]
    file.write_text(file.read_text().replace("ttyUSB0", "ttyACM0"))
    assert [line.split()[0] for line in install(file)[1].splitlines()[:2]] == ["unchanged", "replaced"]
    assert not list(folder.rglob(".*.new"))


def test_a_dry_run_writes_nothing_and_needs_no_root(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    file, _ = config(tmp_path, device(0, "/dev/ttyUSB0"))
    status, said = install(file, "--dry-run")
    assert status == 0
    assert "ExecStart=/opt/pipx/bin/outstation run" in said
    assert not folder.exists()
    status, said = install(file)
    assert (status, folder.exists()) == (1, False)
    assert "sudo /opt/pipx/bin/outstation install-service" in said


def test_with_the_package_the_drop_in_alone(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service.PACKAGED.write_text("")
    file, _ = config(tmp_path, device(0, "/dev/ttyUSB0"))
    status, said = install(file)
    assert status == 1
    assert "belongs to the Debian package" in said
    monkeypatch.setattr(service, "PROGRAM", "/opt/pipx/bin/outstation")
    monkeypatch.setattr(service, "CONFIG_FILE", str(file))
    assert install(file)[0] == 0
    assert not (folder / "outstation.service").exists()
    assert service.DROP_IN.exists()


def test_what_the_service_could_not_see_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = config(tmp_path, '[outbox]\npath = "/srv/outbox.db"\n')
    status, said = install(file)
    assert (status, "/var/lib/outstation" in said) == (1, True)
    file, _ = config(tmp_path, "")
    monkeypatch.setattr(service, "HIDDEN", (str(tmp_path),))
    status, said = install(file)
    assert (status, "/etc/outstation" in said) == (1, True)
    monkeypatch.setattr(service, "HIDDEN", ("/opt/pipx",))
    status, said = install(file)
    assert (status, "PIPX_HOME" in said) == (1, True)
    assert not folder.exists()


def test_a_wrong_configuration_writes_nothing(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "outstation.toml"
    file.write_text("[mqtt]\nqos = 7\n")
    assert install(file)[0] == 78
    assert not folder.exists()


def test_what_cannot_be_written_is_told(folder: Path, tmp_path: Path) -> None:
    file, _ = config(tmp_path, "")
    folder.write_text("a file where a folder is due")
    status, said = install(file)
    assert status == 1
    assert "outstation.service cannot be written" in said


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_knows_what_it_writes(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = tmp_path / 'a "50%" $HOME'
    odd.mkdir()
    monkeypatch.setattr(service, "program_path", lambda: sys.executable)
    monkeypatch.setattr(service, "HIDDEN", ())
    file, _ = config(odd, device(0, "/dev/ttyUSB0"))
    assert install(file)[0] == 0
    command = ["systemd-analyze", "verify", "--recursive-errors=no", str(folder / "outstation.service")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
