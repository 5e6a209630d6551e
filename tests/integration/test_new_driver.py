"""`outstation new-driver` to a green test: what it writes passes as it is, and the agent finds it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*words: object, cwd: Path, path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(path)}
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
        env=environment,
    )


def outstation(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return run("-m", "agent", "new-driver", *words, cwd=cwd)


def clean(folder: Path) -> None:
    """As ruff wants it under the rules of this house."""
    ruff = [Path(sys.executable).with_name("ruff")]
    for words in (["format", "--check"], ["check"]):
        command = [*ruff, *words, "--no-cache", "--config", str(ROOT / "pyproject.toml"), "."]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=30, check=False)
        assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("shape", [[], ["--poll"]])
def test_a_new_package_passes_its_tests_at_once(tmp_path: Path, shape: list[str]) -> None:
    made = outstation("lab_scale", *shape, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    folder = tmp_path / "outstation-lab-scale"
    tests = run("-m", "pytest", "-q", cwd=folder)
    assert re.search(rf"\b{4 + len(shape)} passed", tests.stdout), tests.stdout
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["outstation.drivers"] == {"lab_scale": "outstation_lab_scale:LabScale"}
    sample = run(
        "-c",
        "import outstation_lab_scale as m; from agent.registry import Registry; from agent.config import load\n"
        "registry = Registry.of({'lab_scale': m.LabScale})\n"
        "open('x.toml', 'w').write('[mqtt]\\nurls = [\"mqtt://h\"]\\n' + registry.load('lab_scale').sample)\n"
        "print(load('x.toml', registry).devices[0].config.name)",
        cwd=folder,
    )
    assert sample.stdout == "lab_scale\n", sample.stderr
    clean(folder)

    # The test can fail: a parser that takes another byte order.
    driver = folder / "outstation_lab_scale.py"
    driver.write_text(driver.read_text().replace('"big"', '"little"'))
    assert "failed" in run("-m", "pytest", "-q", cwd=folder).stdout
    again = outstation("lab_scale", cwd=tmp_path)
    assert (again.returncode, "is there already" in again.stderr) == (2, True)


def test_a_builtin_driver_is_entered_and_passes_with_the_shared_tests(tmp_path: Path) -> None:
    for name in ("agent", "drivers"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests" / "cases").mkdir(parents=True)
    for name in ("pyproject.toml", "tests/cases/test_cases.py", "tests/cases/conftest.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    made = outstation("lab_scale", "--builtin", "--into", tmp_path, cwd=ROOT)
    assert made.returncode == 0, made.stderr
    words = ("-m", "pytest", "tests/unit/test_lab_scale.py", "tests/cases", "-k", "lab_scale")
    tests = run(*words, cwd=tmp_path, path=tmp_path)
    assert "5 passed" in tests.stdout, tests.stdout
    listed = run("-m", "agent", "drivers", cwd=tmp_path, path=tmp_path)
    assert "ACME LAB_SCALE: temperature." in listed.stdout
    entries = tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]["entry-points"]
    assert entries["outstation.drivers"]["lab_scale"] == "drivers.lab_scale:LabScale"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["Scale"], "a letter first"),
        (["class"], "no word of Python"),
        (["lines"], "there is a driver 'lines' already"),
        (["scale", "--builtin"], "is no checkout of Outstation"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_written(tmp_path: Path, words: list[str], says: str) -> None:
    result = outstation(*words, cwd=tmp_path)
    assert result.returncode == 2
    assert says in " ".join(result.stderr.split())
    assert not list(tmp_path.iterdir())
