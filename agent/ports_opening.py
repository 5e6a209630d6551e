"""An opening that somebody may stop waiting for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    """What is left open costs a descriptor, or a process."""

    def close(self) -> None: ...


OpenedT = TypeVar("OpenedT", bound=Closable)


class Opening(Generic[OpenedT]):
    """One opening under way on a worker. Abandoned, it closes what it gets: nobody waits for it any more.

    Both sides first write, then look: whatever the order, one of them sees the other, and closing twice does no harm.
    """

    def __init__(self, fn: Callable[[], OpenedT | None]) -> None:
        """fn opens; it may block."""
        self._fn = fn
        self._opened: OpenedT | None = None
        self._abandoned = False

    def run(self) -> OpenedT | None:
        """Open: the worker's part."""
        self._opened = self._fn()
        if self._abandoned and self._opened is not None:
            self._opened.close()
        return self._opened

    def abandon(self) -> None:
        """Close what was opened, or will be."""
        self._abandoned = True
        if self._opened is not None:
            self._opened.close()
