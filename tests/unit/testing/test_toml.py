"""The writer of configurations, held by the standard library's reader."""

from __future__ import annotations

import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.testing.toml import dumps

# No surrogates: TOML text is UTF-8.
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SCALAR = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | TEXT
VALUE = st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4))
TABLE = st.dictionaries(TEXT, VALUE, max_size=5)


@given(TABLE)
def test_what_is_written_is_read_back(table: dict[str, Any]) -> None:
    assert tomllib.loads(dumps(table)) == table


def test_a_configuration_looks_like_one() -> None:
    config = {
        "device": [{"name": "w", "channels": {"t": {"unit": "°C"}}, "port": Path("/dev/x")}],
        "agent": {"id": None},
    }
    assert dumps(config) == (
        '[[device]]\nname = "w"\nport = "/dev/x"\n[device.channels]\n[device.channels.t]\nunit = "°C"\n[agent]\n'
    )


def test_what_toml_has_no_word_for_is_refused() -> None:
    with pytest.raises(TypeError, match="no date"):
        dumps({"when": date(2026, 1, 1)})
