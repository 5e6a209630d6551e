"""Whom the outbox's disk tells: ``outbox.Outbox``, as ``outbox_disk`` needs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from agent.model import Reading
from agent.outbox_lane import Lane


class Owner(Protocol):
    """The outbox: whom the disk tells."""

    on_ready: Callable[[], object]
    connected: bool

    @property
    def depth(self) -> int: ...

    @property
    def lanes(self) -> tuple[Lane, Lane]: ...

    def totals(self) -> dict[str, int | str]: ...

    def found(self, count: int, size: int, last: int) -> None: ...

    def corrected(self, count: int, size: int) -> None: ...

    def stored(self, row: int) -> None: ...

    def brake_off(self, off: bool) -> None: ...

    def loaded(self, lane: Lane, readings: Sequence[Reading], *, all_of_it: bool) -> None: ...

    def thinned(self, lane: Lane, dropped: dict[str, int], size: int, last: int) -> None: ...
