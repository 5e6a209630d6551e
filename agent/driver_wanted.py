"""Who waits for the reading that is under way, where somebody asked for one between two intervals (``read_now``)."""

from __future__ import annotations

from collections.abc import Callable


class Wanted:
    """At most one: the device gathers those who ask meanwhile, and a new one comes only after the last was given up."""

    def __init__(self) -> None:
        self._done: Callable[[str | None], object] | None = None

    def by(self, done: Callable[[str | None], object]) -> None:
        """``done`` is told when the reading that is under way, or about to be, is over."""
        self._done = done

    def over(self) -> None:
        """All that was asked has been answered or given up, and emitted."""
        done, self._done = self._done, None
        if done is not None:
            done(None)
