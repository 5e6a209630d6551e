"""docs/drivers.md, the walk through a driver, works as it stands there."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "drivers.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def distribution(tmp_path: Path) -> Path:
    """The driver of the page, installed as a distribution of its own: a folder on sys.path."""
    module, tests = blocks("python")
    entry_points, _ = blocks("toml")
    (tmp_path / "outstation_a02yyuw.py").write_text(module)
    (tmp_path / "test_a02yyuw.py").write_text(tests)
    metadata = tmp_path / "outstation_a02yyuw-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: outstation-a02yyuw\nVersion: 1.0\n")
    ((group, entries),) = tomllib.loads(entry_points)["project"]["entry-points"].items()
    lines = [f"[{group}]", *(f"{name} = {target}" for name, target in entries.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def run(distribution: Path, *command: str) -> str:
    env = {**os.environ, "PYTHONPATH": f"{distribution}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(
        [sys.executable, *command], cwd=distribution, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_its_tests_pass(distribution: Path) -> None:
    assert "2 passed" in run(distribution, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_a02yyuw.py")


def test_the_agent_finds_it(distribution: Path) -> None:
    assert "A02YYUW ultrasonic distance sensor" in run(distribution, "-m", "agent", "drivers")
    assert "mounted_at" in run(distribution, "-m", "agent", "drivers", "a02yyuw")


def test_its_configuration_is_right(distribution: Path) -> None:
    config = distribution / "outstation.toml"
    config.write_text(blocks("toml")[1])
    assert "tank" in run(distribution, "-m", "agent", "check", "-c", str(config))


def test_the_same_bytes_give_the_same_items_however_cut(distribution: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(distribution))
    from outstation_a02yyuw import A02yyuwParser  # type: ignore[import-not-found]

    rng = random.Random(2)
    frames = [
        bytes([0xFF, high, low, (0xFF + high + low) & 0xFF]) for high, low in zip(range(200), range(200), strict=True)
    ]
    data = b"".join(frame + rng.randbytes(rng.choice([0, 0, 0, 1, 3, 200])) for frame in frames)
    whole = A02yyuwParser(2000)
    expected = [*whole.feed(data), *whole.end()]
    assert len(expected) > 200
    for _ in range(20):
        chopped, items, at = A02yyuwParser(2000), [], 0
        while at < len(data):
            step = rng.randint(1, 9)
            items += chopped.feed(data[at : at + step])
            at += step
        assert [*items, *chopped.end()] == expected
