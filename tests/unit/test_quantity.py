"""Durations and sizes as the configuration writes them."""

from __future__ import annotations

import pytest

from agent.quantity import duration, size


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0.0),
        (2, 2.0),
        (0.5, 0.5),
        ("250ms", 0.25),
        ("30s", 30.0),
        ("5m", 300.0),
        ("1.5 h", 5400.0),
        ("30d", 2592000.0),
    ],
)
def test_durations(value: object, seconds: float) -> None:
    assert duration(value) == seconds


@pytest.mark.parametrize(
    "value", [-1, True, None, [], "", "30", "s", "30 sec", "-5s", "1e3s", "5m30s", float("nan"), float("inf")]
)
def test_bad_durations(value: object) -> None:
    with pytest.raises(ValueError, match="a duration is"):
        duration(value)


@pytest.mark.parametrize(
    ("value", "count"), [(0, 0), (4096, 4096), ("256MB", 256_000_000), ("64MiB", 2**26), ("1.5kB", 1500)]
)
def test_sizes(value: object, count: int) -> None:
    assert size(value) == count


@pytest.mark.parametrize("value", [-1, 1.5, True, None, "", "256", "MB", "-1MB", "1 mb", "1TB"])
def test_bad_sizes(value: object) -> None:
    with pytest.raises(ValueError, match="a size is"):
        size(value)
