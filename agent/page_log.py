"""The last lines of the log, kept for the status page."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any

LINES = 200
LONGEST_LINE = 500
"""Characters of a line: 200 of them are 0.1 MB at most."""


class RecentLog(logging.Handler):
    """Lines of level INFO and above, numbered from 1. Any thread may log: a deque takes one item at a time."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._lines: deque[dict[str, Any]] = deque(maxlen=LINES)
        self.last = 0
        """The number of the latest line; 0: none yet."""

    def start(self) -> None:
        logging.getLogger().addHandler(self)

    def end(self) -> None:
        logging.getLogger().removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if len(text) > LONGEST_LINE:
            text = f"{text[: LONGEST_LINE - 1]}…"
        self.last += 1  # under the handler's lock (logging.Handler.handle)
        level = record.levelname.lower()
        self._lines.append({"n": self.last, "at": round(record.created, 3), "level": level, "text": text})

    def since(self, number: int) -> list[dict[str, Any]]:
        """The lines after that one, the oldest first."""
        return [each for each in list(self._lines) if each["n"] > number]
