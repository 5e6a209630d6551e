"""pytest as a stranger runs it, for tests of the plugin and of the page about it."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def run_pytest(directory: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run it in a directory that knows nothing of this repository but the package."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *args],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=55,
    )


def plugin() -> list[str]:
    """Installed, pytest finds it by its entry point; in a bare source tree it has to be told."""
    found = any(point.value == "agent.testing.plugin" for point in entry_points(group="pytest11"))
    return [] if found else ["-p", "agent.testing.plugin"]
