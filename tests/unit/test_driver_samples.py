"""The sample TOML in the docstring of each driver is valid."""

from __future__ import annotations

import importlib
import textwrap
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DRIVERS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["outstation.drivers"]


@pytest.mark.parametrize("name", DRIVERS)
def test_the_sample_of_a_driver_is_valid(name: str) -> None:
    module_name, _, attribute = DRIVERS[name].partition(":")
    module = importlib.import_module(module_name)
    _, mark, sample = (module.__doc__ or "").partition("\nSample::\n")
    assert mark, "the docstring ends with Sample:: and an indented block of TOML"
    (table,) = tomllib.loads(textwrap.dedent(sample))["device"]
    assert table["driver"] == name
    getattr(module, attribute).Config(**table)
