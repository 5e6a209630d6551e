"""What to call a function in a log: never by its address, and by the file and line a person can open."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType


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
    """``Meter.poll``, ``time.sleep``, ``main.<locals>.<lambda>``; for an object that can be called, its class."""
    plain = fn.__func__ if type(fn) is MethodType else fn
    if (
        type(plain) is FunctionType and not plain.__dict__
    ):  # nearly all of them, at a tenth of the price of what follows
        return plain.__qualname__
    inner = unwrapped(fn)
    name = str(getattr(inner, "__qualname__", None) or type(inner).__qualname__)
    module = getattr(inner, "__module__", None)
    if module and isinstance(inner, BuiltinFunctionType):
        return f"{module}.{name}"  # "sleep" alone says too little
    return name


def place_of(fn: Callable[..., object]) -> tuple[str, str | None, int | None]:
    """(function, file, line) of the definition; file and line are None for built-ins."""
    inner = unwrapped(fn)
    code = getattr(inner, "__code__", None)
    if code is None:  # an instance with __call__
        code = getattr(getattr(type(inner), "__call__", None), "__code__", None)
    if isinstance(code, CodeType):
        return name_of(fn), code.co_filename, code.co_firstlineno
    return name_of(fn), None, None
