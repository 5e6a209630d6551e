"""What to call a function in a log: never by its address, and by the file and line a person can open."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import BuiltinFunctionType, CodeType


def unwrapped(fn: Callable[..., object]) -> object:
    """The function under ``functools.partial``, decorators that use ``functools.wraps``, and bound methods."""
    inner: object = fn
    for _ in range(32):  # a ring of __wrapped__ ends here
        if isinstance(inner, functools.partial):
            inner = inner.func
        elif hasattr(inner, "__wrapped__"):
            inner = inner.__wrapped__
        elif hasattr(inner, "__func__"):
            inner = inner.__func__
        else:
            break
    return inner


def name_of(fn: Callable[..., object]) -> str:
    """``Meter.poll``, ``sleep``, ``main.<locals>.<lambda>``; for an object that can be called, its class."""
    name = getattr(fn, "__qualname__", None)  # of a wrapper, functools.wraps made it that of the wrapped
    if name is None:
        inner = unwrapped(fn)
        name = getattr(inner, "__qualname__", None) or type(inner).__qualname__
    return str(name)


def place_of(fn: Callable[..., object]) -> tuple[str, str | None, int | None]:
    """(function, file, line) of the definition; for built-ins, which have their module before the name, None."""
    inner = unwrapped(fn)
    code = getattr(inner, "__code__", None)
    if code is None:  # an instance with __call__
        code = getattr(getattr(type(inner), "__call__", None), "__code__", None)  # noqa: B004 - for its code
    name = name_of(fn)
    if isinstance(code, CodeType):
        return name, code.co_filename, code.co_firstlineno
    module = getattr(inner, "__module__", None) if isinstance(inner, BuiltinFunctionType) else None
    return f"{module}.{name}" if module else name, None, None
