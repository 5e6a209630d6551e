"""Where the harness's parts are, and what its own tests need of the machine."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "integration"))  # relay.py is theirs


@pytest.fixture(autouse=True)
def _compiler(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("bare") is None and shutil.which("cc") is None:
        pytest.skip("not installed: cc")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "bare: needs no compiler")
