"""What a library imports at its top and this agent may never use: loaded at the first use, if there is one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any


class _Later(ModuleType):
    """Stands for a module in the names of who imported it, and asks the module itself for whatever is wanted of it."""

    def __getattr__(self, name: str) -> Any:
        if name == "__path__":  # of the import statement: is it a package?
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:  # wanted while it is still being imported
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


def _later(module: str, function: str) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        return getattr(import_module(module), function)(*args, **options)

    return call


@contextmanager
def lazily(*names: str) -> Iterator[None]:
    """Imports of these modules inside the ``with`` load nothing yet. Those outside, and loaded modules, are as ever.

    names: "module" for ``import module``; "module:function" for ``from module import function`` (any other of its names
    loads it at once). ``importlib.util.LazyLoader`` does not help here: the import statement itself looks into a module
    that is there, and so loads it (seen up to Python 3.13).
    """
    stand_ins: dict[str, _Later] = {}
    for name in names:
        module, _, function = name.partition(":")
        if module in sys.modules and module not in stand_ins:
            continue
        stand_in = stand_ins.setdefault(module, _Later(module))
        if function:
            setattr(stand_in, function, _later(module, function))
        package, _, child = module.rpartition(".")
        if package:  # "import a.b" binds b in a only when it loads b
            setattr(import_module(package), child, stand_in)
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for module, stand_in in stand_ins.items():
            if sys.modules.get(module) is stand_in:
                del sys.modules[module]
