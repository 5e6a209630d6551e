"""A driver of somebody else, installed by pip as a distribution of its own: found, shown, and at work."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.testing import PtyPort
from agent.testing.outstation import Outstation

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "tests" / "thirdparty" / "outstation-maxsonar"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Installs the package into a folder; the environment in which the agent finds it there."""
    folder = tmp_path_factory.mktemp("thirdparty")
    source = shutil.copytree(PACKAGE, folder / "source")  # a build leaves traces beside its sources
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet", "install"]
    # Offline: the build backend is that of the development environment, its dependency the agent of this tree.
    command += ["--no-index", "--no-deps", "--no-build-isolation", "--target", str(folder / "site"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {"PYTHONPATH": f"{folder / 'site'}{os.pathsep}{ROOT}"}


def outstation(environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "agent", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_listed_with_its_distribution_and_shown(environment: dict[str, str]) -> None:
    (listed,) = [text for text in outstation(environment, "drivers").splitlines() if text.startswith("maxsonar ")]
    assert listed.split() == [
        "maxsonar",
        "outstation-maxsonar",
        "1.2",
        *["MaxBotix", "HRXL-MaxSonar-WR", "ultrasonic", "sensors."],
    ]
    page = outstation(environment, "drivers", "maxsonar")
    assert 'driver = "maxsonar"' in page
    assert "distance  mm  300..4999  distance" in page
    assert "baudrate" in page


def test_without_it_the_configuration_says_that_there_is_no_such_driver(tmp_path: Path) -> None:
    config = tmp_path / "outstation.toml"
    config.write_text('[[device]]\nname = "silo"\ndriver = "maxsonar"\nport = "/dev/ttyUSB0"\n')
    command = [sys.executable, "-m", "agent", "check", "-c", str(config)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 78
    assert "no such driver" in done.stdout + done.stderr


def test_it_reads_a_sensor_and_obeys_the_rules_of_every_device(
    environment: dict[str, str], serial_device: PtyPort, outstation_start: Callable[..., Outstation]
) -> None:
    rules = {"on_change": True, "check_range": True}
    device = {"name": "silo", "driver": "maxsonar", "port": serial_device.path, "rules": rules}
    agent = outstation_start({"device": [device]}, env=environment)
    for text in (b"R1234\r", b"R1234\r", b"R12?4\r", b"R0299\r", b"R5000\r", b"R1235\r"):
        serial_device.send(text)
    readings = [agent.next_reading("silo") for _ in range(3)]
    assert [reading.fields for reading in readings] == [{"distance": 1234}, {"distance": None}, {"distance": 1235}]
    assert [reading.seq for reading in readings] == [1, 2, 3]
    status = agent.wait_status(lambda s: s["devices"]["silo"]["rules"]["passed"] == 3)
    assert {kind: f["count"] for kind, f in status["devices"]["silo"]["faults"].items()} == {"syntax": 1, "range": 1}
    assert status["devices"]["silo"]["rules"]["suppressed"] == 1
