"""What deploy/ ships is right as far as can be told without installing it."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
UNIT = ROOT / "agent" / "service" / "outstation.service"

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with its drop-ins, as it would be installed, but for a program that exists on this machine."""
    folder = tmp_path / "outstation.service.d"
    folder.mkdir()
    shutil.copy(DEPLOY / "outstation.service.d" / "password.conf", folder)
    text = UNIT.read_text().replace("/opt/outstation/bin/outstation", sys.executable)
    path = tmp_path / "outstation.service"
    path.write_text(text)
    return path


@needs_systemd
def test_systemd_knows_every_line_of_the_unit(unit: Path) -> None:
    # Without --recursive-errors=no a misspelt key passes.
    command = ["systemd-analyze", "verify", "--recursive-errors=no", str(unit)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


@needs_systemd
def test_the_sandbox_stays_closed(unit: Path) -> None:
    # 1.7 of 10: open are the network, the devices, the question after the clock, and /proc/meminfo and its like.
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=17", "--no-pager", str(unit)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 0, result.stdout


@needs_systemd
def test_a_drop_in_closes_the_clock_too(unit: Path) -> None:
    dropped = (ROOT / "deploy" / "outstation.service.d" / "closed-clock.conf").read_text()
    unit.write_text(f"{unit.read_text()}\n{dropped}")
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=13", "--no-pager", str(unit)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 0, result.stdout


def system_calls(name: str) -> set[str]:
    """What ``name`` stands for in SystemCallFilter=: a system call, or a set of them (``@timer``) in full."""
    if not name.startswith("@"):
        return {name}
    command = ["systemd-analyze", "syscall-filter", "--no-pager", name]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    words = {line.strip() for line in result.stdout.splitlines() if not line.lstrip().startswith("#")} - {name, ""}
    return set().union(*map(system_calls, words))


@needs_systemd
def test_the_sandbox_lets_the_clock_be_asked_but_not_be_set() -> None:
    allowed: set[str] = set()
    for line in re.findall(r"^SystemCallFilter=(.*)$", UNIT.read_text(), re.MULTILINE):
        names = set().union(*map(system_calls, line.removeprefix("~").split()))
        allowed = allowed - names if line.startswith("~") else allowed | names
    # The agent asks by adjtimex(3), which glibc makes clock_adjtime; on 32 bits and since 2.34 clock_adjtime64.
    assert {"adjtimex", "clock_adjtime", "clock_adjtime64"} <= allowed
    assert {"timerfd_create", "timerfd_settime", "timerfd_settime64"} <= allowed
    assert not {"clock_settime", "clock_settime64", "settimeofday"} & allowed
    assert "ProtectClock=yes" not in re.sub("^#.*$", "", UNIT.read_text(), flags=re.MULTILINE)


def test_the_unit_and_the_agent_agree() -> None:
    """The exit statuses, the time for a clean stop and the name of the credential are the agent's own."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNIT)
    service = unit["Service"]
    from agent.config import AgentSettings

    stop_timeout = AgentSettings.model_fields["stop_timeout"].default
    assert float(service["TimeoutStopSec"].removesuffix("s")) > stop_timeout + 5
    assert service["RestartPreventExitStatus"] == "78"
    assert service["StateDirectory"] == "outstation"
    assert (service["User"], service["DynamicUser"]) == ("outstation", "yes")
    assert "u outstation " in (DEPLOY / "deb" / "outstation.sysusers").read_text()
    outbox = tomllib.loads((DEPLOY / "outstation.toml").read_text())["outbox"]["path"]
    assert outbox == f"/var/lib/{service['StateDirectory']}/outbox.db"
    credential = (DEPLOY / "outstation.service.d" / "password.conf").read_text()
    assert re.search(r"^LoadCredential=mqtt-password:", credential, re.MULTILINE)


@pytest.mark.parametrize("name", ["outstation.toml", "compose.toml"])
def test_the_examples_pass_the_check(name: str) -> None:
    command = [sys.executable, "-m", "agent", "check", "-c", str(DEPLOY / name)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_commented_example_of_a_device_passes_too(tmp_path: Path) -> None:
    """What a user gets by taking the "#" away must be right as well."""
    text = (DEPLOY / "outstation.toml").read_text()
    assert '#[[device]]\n#name = "weather"' in text
    head, _, tail = text.partition("#[[device]]")
    config = tmp_path / "outstation.toml"
    config.write_text(head + "[[device]]" + tail.replace("\n#", "\n"))
    command = [sys.executable, "-m", "agent", "check", "-c", str(config)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "weather" in result.stdout


def compose() -> str:
    return (DEPLOY / "compose.yaml").read_text()


def test_the_compose_file_mounts_what_is_there_or_what_the_script_makes() -> None:
    """No engine runs here: what can be told from the text alone."""
    made = {"ca.pem", "server.pem", "server.key", "passwords", "boards/outstation.password", "reader.password"}
    mounted = re.findall(r"^ *#? *- \./([^:]+):", compose(), re.MULTILINE)
    assert len(mounted) > 8
    for name in mounted:
        place = name.removeprefix("credentials/")
        assert place in made if place != name else (DEPLOY / name).exists(), name
    assert "credentials/" in (ROOT / ".gitignore").read_text()


def test_the_compose_file_runs_the_recipe_and_opens_nothing_to_the_network() -> None:
    (change,) = re.findall(r"sed 's\|([^|]+)\|", compose())
    assert change in (DEPLOY / "brokers" / "mosquitto" / "mosquitto.conf").read_text()
    ports = re.findall(r"ports: \[\"([^\"]+)\"\]", compose())
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_commented_profile_is_whole_once_the_comments_are_gone() -> None:
    text = re.sub(r"^( +)#(?=\S| {2})", r"\1", compose(), flags=re.MULTILINE)
    for name in ("telegraf", "influxdb", "grafana"):
        assert re.search(rf"^  {name}:\n    image: \S+:\S+\n    profiles: \[graphs\]$", text, re.MULTILINE), name
    tokens = re.findall(r"(?:INFLUX_TOKEN|ADMIN_TOKEN): ([\w-]+)", text)
    assert len(tokens) == 2
    assert len(set(tokens)) == 1  # what Telegraf says is what InfluxDB was told
    tomllib.loads((DEPLOY / "compose-telegraf.conf").read_text())
