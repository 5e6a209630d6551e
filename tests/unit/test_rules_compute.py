"""Expressions of computed channels: arithmetic, and nothing that takes long or reaches anything."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("simpleeval")

from agent.rules_compute import DEPTH, FUNCTIONS, ComputeError, Expression, identifier


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a + 1", 3.0),
        ("3 * 0.1", 0.3),
        ("7 // 2 + 7 % 4", 6.0),
        ("2 ** 10", 1024.0),
        ("-a", -2.0),
        ("a > 1 and not a == 3", True),
        ("1 < a < 2", False),
        ("a if on else 0 - a", 2.0),
        ("on * 100", 100.0),
        ('mode == "auto"', True),
        ("round(pi, 2)", 3.14),
        ("round(1234.5)", 1234.0),
        ("max(1, a, 3) - min(a, 1)", 2.0),
        ("sqrt(a * 8) + hypot(3, 4)", 9.0),
        ("floor(-0.5) + ceil(0.5)", 0.0),
    ],
)
def test_what_it_computes(text: str, value: Any) -> None:
    found = Expression(text).value({"a": 2, "on": True, "mode": "auto", "other": None})
    assert (found, type(found)) == (value, type(value))


def test_the_names_that_it_needs() -> None:
    assert Expression("min(a, b) * pi + (c if d else 1)").names == {"a", "b", "c", "d"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not an expression"),
        ("a +", "not an expression: invalid syntax"),
        ("a = 1", "not an expression"),
        ("a; b", "not an expression"),
        ("a.real", '"a.real" is more than'),
        ("a[0]", "is more than"),
        ("[a]", "is more than"),
        ("[x for x in a]", "is more than"),
        ("lambda: 1", "is more than"),
        ("(b := 1)", "is more than"),
        ("f'{a}'", "is more than"),
        ("a << 9999999999", "LShift is more than"),
        ("~a", "Invert is more than"),
        ("a in b", "In is more than"),
        ("1j", "not a finite number"),
        ("1e999", "not a finite number"),
        ("None", "not a finite number: None"),
        ("b'x'", "not a finite number"),
        ("1" * 500, "not a finite number: 1111"),
        ("__import__('os')", "no function __import__; there are abs, "),
        ("a.b(1)", "no function a.b"),
        ("min(*a)", "is more than"),
        ("round(a, digits=1)", "takes no named arguments"),
        ("sqrt(1, 2)", "not an expression"),
        ("min(1)", "not an expression"),
        ("'a' * 1000000000", "text where a number is due"),
        ("'%99999999999d' % 1", "text where a number is due"),
        ("'a' + 'b'", "text where a number is due"),
        ("'a'", "the result is text"),
        ("9 ** 9 ** 9 ** 9", "not an expression: math range error"),
        ("1 / 0", "not an expression: float division by zero"),
        ("-" * DEPTH + "1", "nested deeper than"),
    ],
)
def test_what_is_no_expression(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Expression(text)


@pytest.mark.parametrize(
    ("text", "fields", "message"),
    [
        ("1 / a", {"a": 0}, "division by zero"),
        ("1 % a", {"a": 0}, "modulo|division"),
        ("a ** a ** a", {"a": 999}, "math range error"),
        ("a * a", {"a": 1e200}, "the result is inf"),
        ("a - a", {"a": float("inf")}, "the result is nan"),
        ("(0 - a) ** 0.5", {"a": 4}, "math domain error"),
        ("sqrt(a)", {"a": -1}, "math domain error"),
        ("floor(a)", {"a": float("nan")}, "NaN"),
        ("round(a, b)", {"a": 1, "b": float("inf")}, "infinity"),
        ("a + 1", {"a": "21.5"}, "text where a number is due"),
        ("a + 1", {"a": None}, "null where a number is due"),
        ("a", {"a": "on"}, "the result is text or null"),
        ("a % 1", {"a": "%99999999999d"}, "text where a number is due"),
        ("a * 2", {"a": "x" * 1000}, "text where a number is due"),
    ],
)
def test_what_has_no_value(text: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ComputeError, match=message):
        Expression(text).value(fields)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_function_takes_numbers_alone(name: str) -> None:
    with pytest.raises(TypeError, match="text where a number is due"):
        FUNCTIONS[name]("1", "2")


def test_the_page_names_every_function() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "rules.md").read_text()
    section = page.partition("## Computed channels")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([a-z0-9]+)`", section))
    assert named - {"compute", "pi", "rules", "bme_280_t"} == FUNCTIONS.keys()


def test_a_channels_name_in_an_expression() -> None:
    assert [identifier(name) for name in ("t", "bme-280/t", "1t", "größe", "a b")] == [
        "t",
        "bme_280_t",
        "_1t",
        "größe",
        "a_b",
    ]
