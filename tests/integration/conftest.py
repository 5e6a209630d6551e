"""For tests that start commands: none of these outlives its test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from started import Started


@pytest.fixture(autouse=True)
def commands_end() -> Iterator[None]:
    """Also where an assertion between a command's start and its end fails, or a wait for what it shows."""
    yield
    Started.end_all()
