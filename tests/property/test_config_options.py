"""What is written for people reads back as what it was."""

from __future__ import annotations

import math
import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent.config_options import duration_text, size_text, toml
from agent.quantity import duration, size

TEXT = st.text(max_size=200)
PLAIN = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.booleans() | TEXT
BARE = st.text("abz_-09", min_size=1)
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(BARE, inner, max_size=3))


@given(VALUES)
def test_toml(value: Any) -> None:
    assert tomllib.loads(f"x = {toml(value)}") == {"x": value}


@given(st.integers(0, 10**7).map(lambda ms: ms / 1000) | st.integers(0, 10**4).map(lambda days: days * 86_400.0))
def test_durations(seconds: float) -> None:
    assert math.isclose(duration(duration_text(seconds)), seconds, rel_tol=1e-5, abs_tol=1e-9)


@given(st.integers(0, 2**50))
def test_sizes(count: int) -> None:
    assert size(size_text(count)) == count
