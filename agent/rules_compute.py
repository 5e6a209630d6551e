"""Expressions of computed channels. Pure; needs simpleeval (the extra ``rules``), which walks Python's syntax tree.

An expression is arithmetic: numbers, channels, comparisons, ``and or not``, ``a if b else c`` and FUNCTIONS. What else
simpleeval knows (attributes, indices, formatting, strings that grow) is refused before it sees it, and all numbers are
floats, so that no operation takes longer than another: ``9 ** 9 ** 9`` is an overflow, not a day of work.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import simpleeval  # type: ignore[import-untyped]

from agent.model import Value

DEPTH: Final = 40
"""Deepest nesting of an expression; each level costs two of Python's 1,000 frames."""


class ComputeError(ValueError):
    """An expression has no value for these channels: a division by zero, say. ``Rules`` makes a Fault of it."""


def _numbers(fn: Callable[..., Any]) -> Callable[..., Any]:
    """fn for numbers alone: ``"%9999999d" % 1`` is none of them, nor is "a" * 3."""

    def checked(*values: Any) -> Any:
        for value in values:
            if value.__class__ is not float and value.__class__ is not bool:
                raise TypeError(f"{'text' if isinstance(value, str) else 'null'} where a number is due")
        return fn(*values)

    return checked


def _round(value: float, digits: float = 0.0) -> float:
    return float(round(value, int(digits)))


def _least(first: float, second: float, *more: float) -> float:
    return min(first, second, *more)


def _most(first: float, second: float, *more: float) -> float:
    return max(first, second, *more)


_PLAIN: Final[dict[str, Callable[..., Any]]] = {
    "abs": abs,
    "acos": math.acos,
    "asin": math.asin,
    "atan": math.atan,
    "atan2": math.atan2,
    "ceil": lambda value: float(math.ceil(value)),
    "cos": math.cos,
    "degrees": math.degrees,
    "exp": math.exp,
    "floor": lambda value: float(math.floor(value)),
    "hypot": lambda a, b: math.hypot(a, b),
    "log": lambda value: math.log(value),
    "log10": math.log10,
    "max": _most,
    "min": _least,
    "radians": math.radians,
    "round": _round,
    "sin": math.sin,
    "sqrt": math.sqrt,
    "tan": math.tan,
}
FUNCTIONS: Final = {name: _numbers(fn) for name, fn in _PLAIN.items()}
"""What an expression may call; angles in radians, ``log`` to base e."""
CONSTANTS: Final[dict[str, Value]] = {"pi": math.pi}

_ARITHMETIC: Final[dict[type[ast.AST], Callable[..., Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: math.pow,  # of Python's own a negative base makes a complex number
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_OPERATORS: Final[dict[type[ast.AST], Callable[..., Any]]] = {
    **{kind: _numbers(fn) for kind, fn in _ARITHMETIC.items()},
    ast.Not: operator.not_,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_ALLOWED: Final = (
    *_OPERATORS,
    *(ast.Expression, ast.Constant, ast.Name, ast.Load, ast.Call, ast.IfExp),
    *(ast.UnaryOp, ast.BinOp, ast.BoolOp, ast.Compare, ast.And, ast.Or),
)


class Expression:
    """One expression. Raises ValueError for what is none, with what is wrong in it."""

    def __init__(self, text: str) -> None:
        try:
            tree = ast.parse(text.strip(), mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            reason = error.msg if isinstance(error, SyntaxError) else "nested too deeply"
            raise ValueError(f"not an expression: {reason}") from None
        self.names = _check(tree)
        """Channels that it needs, each as ``identifier`` writes it."""
        self._text = text
        self._body = tree.body
        self._evaluator = simpleeval.SimpleEval(operators=dict(_OPERATORS), functions=dict(FUNCTIONS), names={})
        try:
            self.value(dict.fromkeys(self.names, 1.0))
        except ComputeError as error:
            # Whether it fits together is seen once, here; with 1 for each channel a quotient may well have no value.
            if isinstance(error.__cause__, TypeError) or not self.names:
                raise ValueError(f"not an expression: {error}") from None

    def value(self, fields: Mapping[str, Value]) -> bool | float:
        """Its value, where ``fields`` has all of ``names``. Raises ComputeError."""
        names = {name: float(value) if type(value) is int else value for name, value in fields.items()}
        self._evaluator.names = names | CONSTANTS
        try:
            found = self._evaluator.eval(self._text, self._body)
        except (TypeError, ArithmeticError, ValueError, simpleeval.InvalidExpression) as error:
            raise ComputeError(str(error)) from error
        if found.__class__ is bool:
            return bool(found)
        if found.__class__ is not float:
            raise ComputeError("the result is text or null, not a number") from TypeError()
        if not math.isfinite(found):
            raise ComputeError(f"the result is {found}")
        # 15 digits are what a double holds for sure: 3 * 0.1 is 0.3 then, not 0.30000000000000004.
        return float(f"{found:.15g}")


def identifier(channel: str) -> str:
    """How an expression writes a channel's name: ``bme-280/t`` is ``bme_280_t``, ``1_t`` is ``_1_t``."""
    name = re.sub(r"\W", "_", channel)
    return f"_{name}" if name[:1].isdigit() else name


def _check(tree: ast.Expression) -> frozenset[str]:
    """The names in an expression. Raises ValueError where it is more than arithmetic."""
    called: set[int] = set()
    names: set[str] = set()
    level: list[ast.AST] = [tree.body]
    for _ in range(DEPTH):
        below: list[ast.AST] = []
        for node in level:
            if not isinstance(node, _ALLOWED):
                raise ValueError(f"{_shown(node)} is more than an expression may hold: numbers, channels, operators")
            if isinstance(node, ast.Call):
                if not isinstance(node.func, ast.Name) or node.func.id not in FUNCTIONS:
                    raise ValueError(f"no function {ast.unparse(node.func)}; there are {', '.join(FUNCTIONS)}")
                if node.keywords:
                    raise ValueError(f"{node.func.id}() takes no named arguments")
                called.add(id(node.func))
            elif isinstance(node, ast.Constant):
                node.value = _constant(node.value)
            elif isinstance(node, ast.Name) and id(node) not in called:
                names.add(node.id)
            below += ast.iter_child_nodes(node)
        level = below
        if not level:
            return frozenset(names - CONSTANTS.keys())
    raise ValueError(f"nested deeper than {DEPTH}")


def _constant(value: Any) -> bool | float | str:
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise ValueError(f"not a finite number: {str(value)[:32]}")


def _shown(node: ast.AST) -> str:
    try:
        text = ast.unparse(node)
    except (AttributeError, ValueError):  # half a comprehension
        text = ""
    return f'"{text}"' if text else f"the operator {type(node).__name__}"
