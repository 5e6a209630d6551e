"""When to try again, and which of many failures to tell people of. Pure: the time is handed in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agent.errors import LinkError
from agent.logline import Repeats

HUMAN = frozenset({"certificate", "client_id", "credentials", "not_authorized", "protocol", "taken_over", "tls"})
"""Reasons that do not heal by themselves: logged as errors, and retried more slowly."""

_NOT_SOON = HUMAN | {"quota"}  # heals by itself, and the later the more often it is asked

STABLE = 10.0
"""Seconds after which a connection counts as good: what comes after it is a new story."""

_SLOW = 5.0  # shortest pause where only a person can help
_SHARE = 1 / 16  # of the time that the link has been away: after 20 s at most 1.25 s, after 8 minutes 30 s
_PROMPT = 5.0  # a connection that ends sooner than this ...
_TAKEN_OVER = 3  # ... so many times in a row is most often taken from us by another client


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do about a failure. times: how often it has been, 0 where that need not be said; pause: in seconds."""

    error: LinkError
    times: int
    pause: float


class Patience:
    """How long the link has been away, and what it has been through since it was last good.

    The pause before a round through the brokers is a share of the time away, so that recovery is late by no more than
    that share, and a long outage costs little; a connection that does not last does not make it short again.
    """

    def __init__(self, shortest: float, longest: float, client_id: str, *, jitter: Callable[[], float]) -> None:
        self.failures = 0
        """Since the link was last good."""
        self.away_since = 0.0
        self._shortest = shortest
        self._longest = max(shortest, longest)
        self._client_id = client_id
        self._jitter = jitter
        self._prompt = 0
        self.repeated = Repeats()
        """Counts by kind and address what has happened since the link was last good."""

    def begin(self, now: float) -> None:
        """The link is wanted from now on."""
        self.away_since = now
        self.failures = 0
        self._prompt = 0
        self.repeated = Repeats()

    def failed(self, error: LinkError, address: str, now: float, lasted: float | None) -> Verdict:
        """An attempt has failed, or a connection has ended after ``lasted`` seconds (None: it never came up)."""
        if lasted is not None and lasted >= STABLE:
            self.begin(now)
        self.failures += 1
        self._prompt = self._prompt + 1 if error.reason == "lost" and lasted is not None and lasted < _PROMPT else 0
        # A broker that closes after each PUBLISH looks the same, acknowledged or not, as a rival leaves time for that.
        # Either is asked slowly; what is read meanwhile waits in the outbox.
        if self._prompt >= _TAKEN_OVER:  # even where MQTT 5 could say so: Mosquitto 2.0.11 just closes
            error = LinkError(
                "taken_over",
                f"{address} has ended {self._prompt} connections in a row soon after it accepted them: most often "
                f"another client uses the id {self._client_id!r}",
                "give each agent an agent.id, or mqtt.client_id, of its own",
            )
        return Verdict(error, self.repeated((error.reason, address)), self._pause(now - self.away_since, error))

    def _pause(self, away: float, error: LinkError) -> float:
        shortest = max(self._shortest, _SLOW) if error.reason in _NOT_SOON else self._shortest
        longest = max(min(away * _SHARE, self._longest), shortest)
        # Between half of it and all: a broker that comes back is not met by all of its clients at once.
        return longest * (0.5 + 0.5 * self._jitter())
