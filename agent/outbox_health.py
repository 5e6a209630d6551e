"""Whether the outbox's disk works, since when it does not, when to try it again, and what to log of it."""

from __future__ import annotations

import logging
import random
from pathlib import Path

from agent.logline import Repeats, line

RETRY_FIRST, RETRY_MOST = 1.0, 30.0
"""Seconds between two attempts at a disk that fails, doubled each time and jittered by a quarter."""
A_NEW_STORY = 600.0
"""Seconds without trouble after which the next one is told from its first occurrence on."""


class Health:
    """The state of one disk. Pure: the time is handed in, in seconds of the manager's clock."""

    def __init__(self, path: Path, log: logging.Logger) -> None:
        self.trouble: str | None = None
        """Why nothing is written, for a person; None while all is well."""
        self.retry_at = 0.0
        self._path = path
        self._log = log
        self._failures = 0
        self._well_since = 0.0
        self._repeats = Repeats()

    def degraded(self, reason: str, now: float) -> None:
        """Readings stay in memory from now on."""
        if self.trouble is None and now - self._well_since > A_NEW_STORY:
            self._repeats = Repeats()
        if times := self._repeats(reason):
            self._log.error(line("outbox.degraded", reason=reason, times=times, until="readings are kept in memory"))
        self.trouble = reason

    def failed(self, reason: str, now: float) -> None:
        """An attempt has failed: the next one later."""
        self.degraded(reason, now)
        pause = min(RETRY_MOST, RETRY_FIRST * 2 ** min(self._failures, 8))
        self._failures += 1
        self.retry_at = now + pause * (1 - random.random() / 4)

    def works(self, now: float) -> None:
        """Something was written."""
        if self.trouble is None:
            return
        if times := self._repeats("recovered"):
            self._log.warning(line("outbox.recovered", path=self._path, failures=self._failures, times=times))
        self.trouble, self._failures, self._well_since = None, 0, now
