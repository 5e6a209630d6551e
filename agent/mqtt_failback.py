"""Back to the first broker, from a later one: when it has been good for a while, and not to and fro.

While the link is up elsewhere, the first broker is probed now and then, on a worker and under a client id of its own
(``mqtt_probe``): only a CONNACK that accepts us counts (docs/decisions/031).
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

from agent.errors import LinkError
from agent.events import EventManager, TimerEvent, WorkRejected
from agent.logline import Repeats, line
from agent.mqtt_backoff import HUMAN
from agent.mqtt_connect import Attempt
from agent.mqtt_settings import BrokerUrl, MqttSettings

_SHARE = 1 / 16  # of the time that the first broker is away: the return is late by no more, as in mqtt_backoff
_LONGEST = 60.0  # seconds between two probes: a TLS handshake and a hundred bytes
_LONGEST_SETTLE = 600.0  # seconds that it must have been good at last, when it was not worth it again and again
_WORTH = 16.0  # a return was worth it when the first broker then lasted for so many times what it had to settle


class Steadiness:
    """Whether the first broker can be returned to. Pure: the time is handed in.

    It has to be good for ``settle`` seconds, at every probe. A return that did not last doubles that.
    """

    def __init__(self, settle: float, shortest: float, jitter: Callable[[], float]) -> None:
        self.settle = settle
        self._least = settle
        self._shortest = shortest
        self._jitter = jitter
        self._away_since = 0.0
        self._good_since: float | None = None
        self._set_out: float | None = None  # when the last return began
        self._been_there = False  # since the link was last up elsewhere
        self.away_s = 0.0
        """How long the link has been away from the first broker, when ``good`` said to return."""

    def at_first(self) -> None:
        """The link is up there."""
        self._been_there = True

    def at_other(self, now: float) -> float:
        """The link is up at a later one. Seconds until the first probe."""
        if self._set_out is not None:
            worth_it = now - self._set_out >= _WORTH * self.settle
            self.settle = self._least if worth_it else min(2 * self.settle, max(_LONGEST_SETTLE, self._least))
            self._set_out = None
        if self._been_there:
            self._been_there = False
            self._away_since = now
        return self.bad(now)

    def start(self, now: float) -> None:
        """The link is wanted from now on."""
        self._away_since = now
        self._set_out = None
        self._been_there = False
        self.settle = self._least

    def bad(self, now: float, *, human: bool = False) -> float:
        """A probe has failed. Seconds until the next one. human: somebody has to mend it first."""
        self._good_since = None
        away = now - self._away_since
        # Brokers count wrong passwords, and ban.
        pause = _LONGEST if human else max(min(away * _SHARE, _LONGEST), self._shortest)
        return pause * (0.5 + 0.5 * self._jitter())

    def good(self, now: float) -> float | None:
        """A probe has succeeded. Seconds until the next one; None: it is time to return."""
        if self._good_since is None:
            self._good_since = now
        left = self._good_since + self.settle - now
        if left > 0:
            # In between it is looked at, too: what is up for seconds only must not pass by being asked seldom.
            return min(left, max(self.settle / 4, self._shortest))
        self._good_since = None
        self._set_out = now
        self.away_s = now - self._away_since
        return None


class Failback:
    """Probes while the link is up at a later broker, and calls ``go`` when it is time to return to the first."""

    def __init__(
        self,
        manager: EventManager,
        first: BrokerUrl,
        settings: MqttSettings,
        client_id: str,
        go: Callable[[], object],
        log: logging.Logger,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        settle = settings.return_after
        self._wanted = len(settings.urls) > 1 and settle != "never"
        self._manager = manager
        self._first = first
        self._settings = settings
        self._client_id = f"{client_id}-probe"
        self._key = f"{client_id}.0"  # as the link's own attempts at it
        self._go = go
        self._log = log
        shortest = max(settings.retry_min, settle / 8) if settle != "never" else settings.retry_min
        self._steadiness = Steadiness(1.0 if settle == "never" else settle, shortest, jitter)
        self._timer: TimerEvent | None = None
        self._attempt: Attempt | None = None
        self._repeats = Repeats()

    def start(self) -> None:
        """The link is wanted from now on."""
        self._steadiness.start(self._manager.now())

    def up(self, index: int) -> None:
        """The link is up at the broker of that place in the list."""
        self.stop()
        if not self._wanted:
            return
        now = self._manager.now()
        if index == 0:
            self._steadiness.at_first()
            self._repeats = Repeats()
        else:
            self._arm(self._steadiness.at_other(now))

    def stop(self) -> None:
        """The link is not up any more, or is not to return. A probe under way is given up."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.give_up()

    def _arm(self, seconds: float) -> None:
        self._timer = self._manager.create_timer_event(seconds, self._probe, repeat=False, name="mqtt.failback")

    def _probe(self) -> None:
        from agent.mqtt_probe import probe

        self._timer = None
        self._attempt = attempt = Attempt(self._first, self._settings)
        try:
            self._manager.execute_work(
                probe,
                attempt,
                self._client_id,
                on_done=lambda _none: self._good(attempt),
                on_error=lambda error: self._bad(attempt, error),
                key=self._key,
                timeout=2 * self._settings.connect_timeout + 1.0,  # a name, and then both halves of a probe
                name="mqtt.probe",
            )
        except WorkRejected as error:
            self._bad(attempt, error)

    def _good(self, attempt: Attempt) -> None:
        if attempt is not self._attempt:
            return
        self._attempt = None
        pause = self._steadiness.good(self._manager.now())
        if pause is not None:
            self._arm(pause)
            return
        self._log.info(line("link.return", url=self._first, away_s=round(self._steadiness.away_s, 1)))
        self._go()

    def _bad(self, attempt: Attempt, error: BaseException) -> None:
        if attempt is not self._attempt:
            return
        attempt.give_up()
        self._attempt = None
        reason = error.reason if isinstance(error, LinkError) else type(error).__name__
        pause = self._steadiness.bad(self._manager.now(), human=reason in HUMAN)
        if times := self._repeats(reason):
            # No failure of the link, which is up: what keeps it from its first broker is news all the same.
            self._log.info(
                line("link.away", url=self._first, reason=reason, times=times, retry_s=round(pause, 1), error=error)
            )
        self._arm(pause)
