"""What the link tells of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from agent.errors import LinkError

State = Literal["stopped", "connecting", "up", "backoff", "stopping"]


@dataclass(frozen=True, slots=True)
class LinkStats:
    """One look at the link. ``since`` is in seconds of the manager's clock: when the state began."""

    state: State
    url: str
    since: float
    connects: int
    """Connections that a broker has accepted."""
    failures: int
    """Attempts and connections that have failed."""
    last_error: LinkError | None
    inflight: int
    backlog: float
    """Seconds since the link was last good; 0 while it is up."""

    @property
    def reconnects(self) -> int:
        return max(0, self.connects - 1)
