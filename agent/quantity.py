"""Durations and sizes as the configuration writes them: ``"250ms"``, ``"5m"``, ``"256MB"``, or a bare number."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"B": 1, "kB": 1000, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*")


def duration(value: Any) -> float:
    """Seconds from a number or a string with a unit (ms, s, m, h, d). Raises ValueError with what would be right."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError('a duration is a number of seconds or a string as "250ms", "30s", "5m", "1h", "30d"')
    if isinstance(value, str):
        match = _QUANTITY.fullmatch(value)
        if match is None or match[2] not in _UNITS:
            raise ValueError('a duration is a number of seconds or a string as "250ms", "30s", "5m", "1h", "30d"')
        value = float(match[1]) * _UNITS[match[2]]
    if not math.isfinite(value) or value < 0:
        raise ValueError("a duration is finite and not negative")
    return float(value)


def size(value: Any) -> int:
    """Bytes from a whole number or a string with a unit (B, kB, MB, GB, KiB, MiB, GiB). Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2] not in _SIZES:
        raise ValueError('a size is a whole number of bytes or a string as "256MB", "64MiB"')
    return int(float(match[1]) * _SIZES[match[2]])


Duration = Annotated[float, BeforeValidator(duration, json_schema_input_type=float | str)]
"""Seconds, zero allowed; use ``Interval`` where zero makes no sense."""

Interval = Annotated[float, BeforeValidator(duration, json_schema_input_type=float | str), Field(gt=0)]
"""Seconds, more than zero."""

Size = Annotated[int, BeforeValidator(size, json_schema_input_type=int | str)]
"""Bytes."""
