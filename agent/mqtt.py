"""The link to the broker: which one, when to try again, and what to tell people. It outlives its connections.

States: stopped -> connecting -> up (-> backoff -> connecting -> up ...) -> stopping -> stopped. Each connection
is a new ``Session``.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agent.errors import LinkError
from agent.events import EventManager, TimerEvent
from agent.logline import line
from agent.mqtt_backoff import HUMAN, STABLE, Patience
from agent.mqtt_connect import Attempt
from agent.mqtt_dial import Dial
from agent.mqtt_failback import Failback
from agent.mqtt_limit import PacketLimit, packet_size
from agent.mqtt_message import BARE, Message
from agent.mqtt_session import Session
from agent.mqtt_settings import BrokerUrl, MqttSettings
from agent.mqtt_stats import LinkStats, State

if TYPE_CHECKING:
    from agent.mqtt_inflight import Sent
    from agent.mqtt_wire import Wire

__all__ = ["Link", "LinkStats", "MqttSettings"]

_RETURN = 5.0  # seconds that a return may wait for acknowledgements
_FAREWELL = object()  # token of the ``offline`` that is left behind


class Link:
    """One broker at a time, tried again for ever.

    on_up: a broker has accepted us. on_down: it is lost (the error), or we left (None). on_ack: tokens of messages that
    need not be kept any more, many in one call; also called with none when there is room again. on_refused: (token,
    topic, error) of a message that this broker does not take. on_message: what came.
    """

    def __init__(
        self,
        manager: EventManager,
        settings: MqttSettings,
        *,
        client_id: str,
        will: tuple[str, bytes] | None = None,
        log: logging.Logger | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.on_up: Callable[[], object] = _nothing
        self.on_down: Callable[[LinkError | None], object] = _nothing
        self.on_ack: Callable[[list[Any]], object] = _nothing
        self.on_refused: Callable[[Any, str, LinkError], object] = _nothing
        self.on_message: Callable[[Message], object] = _nothing
        self._manager = manager
        self._settings = settings
        self._client_id = settings.client_id or client_id
        self._will = will
        self._log = log or logging.getLogger("outstation.link")
        self._patience = Patience(settings.retry_min, settings.retry_max, self._client_id, jitter=jitter)
        self._brokers = settings.brokers()
        self._limits = [PacketLimit() for _ in self._brokers]
        self._failback = Failback(
            manager, self._brokers[0], settings, self._client_id, self._return, self._log, jitter=jitter
        )
        self._returning = False
        self._farewell = False
        self._state: State = "stopped"
        self._since = manager.now()
        self._round: list[int] = []  # brokers still to be tried before the next pause
        self._index = 0
        self._dial: Dial | None = None
        self._timer: TimerEvent | None = None
        self._session: Session | None = None
        self._subscriptions: dict[str, int] = {}
        self._on_stopped: Callable[[], object] | None = None
        self._connects = 0
        self._failures = 0
        self._noted: set[str] = set()
        self._last_error: LinkError | None = None

    # --- what it is

    @property
    def up(self) -> bool:
        return self._state == "up"

    @property
    def room(self) -> int:
        """How many messages may be published now."""
        return self._session.room if self._session is not None and not self._returning else 0

    @property
    def url(self) -> BrokerUrl:
        return self._brokers[self._index]

    @property
    def client_id(self) -> str:
        return self._client_id

    def fits(self, topic: str, size: int) -> bool:
        """Whether a payload of so many bytes may be sent: by ``max_packet``, and by what an MQTT 5 broker says."""
        largest = self._session.max_packet if self._session is not None else self._settings.max_packet
        return packet_size(topic, size) <= largest

    def stats(self) -> LinkStats:
        now = self._manager.now()
        return LinkStats(
            state=self._state,
            url=str(self.url),
            since=self._since,
            connects=self._connects,
            failures=self._failures,
            last_error=self._last_error,
            inflight=self._session.inflight if self._session is not None else 0,
            backlog=0.0 if self._state == "up" else now - self._patience.away_since,
        )

    # --- what it does

    def start(self) -> None:
        """Begin to connect; returns at once."""
        if self._state != "stopped":
            return
        if self._settings.insecure_skip_verify and any(url.tls for url in self._brokers):
            self._log.warning(
                line(
                    "link.insecure", reason="mqtt.insecure_skip_verify: who is on the way can read and forge everything"
                )
            )
        self._patience.begin(self._manager.now())
        self._failback.start()
        self._new_round(0)

    def publish(
        self, topic: str, payload: bytes, *, qos: int, retain: bool = False, token: Any = None, extra: bytes = BARE
    ) -> bool:
        """Send a message now. False: there is no connection or no room; nothing is kept here.

        ``on_ack`` gets the token: on PUBACK or PUBCOMP, at QoS 0 once it is written. Only between cork and uncork.
        extra: properties of MQTT 5 as on the wire (``mqtt_message``); at QoS 0 and 1 only, not for what is retained.
        """
        if self._session is None or self._returning:
            return False
        return self._session.publish(topic, payload, qos, retain, token, extra)

    def cork(self) -> None:
        if self._session is not None:
            self._session.cork()

    def uncork(self) -> None:
        """Write all that was published since ``cork``, in one system call. May end the connection, or call on_ack."""
        if self._session is not None:
            self._session.uncork()

    def hurry(self) -> None:
        """The end is near: read each acknowledgement as it comes, and stay where we are."""
        self._failback.stop()
        if self._session is not None:
            self._session.eager()

    def subscribe(self, topic_filter: str, *, qos: int = 1) -> None:
        """Now and on each new connection: a broker may resume a session and have forgotten this (seen with NATS)."""
        self._subscriptions[topic_filter] = qos
        if self._session is not None and self._state == "up":
            self._session.subscribe(topic_filter, qos)

    def stop(self, on_stopped: Callable[[], object], *, timeout: float = 1.0) -> None:
        """DISCONNECT behind all that is written, so that no Will is sent; then, within ``timeout`` s, call on_stopped.

        ``on_ack`` goes on meanwhile. Where there is no connection it ends at once.
        """
        if self._state in ("stopped", "stopping"):
            self._manager.call_soon(on_stopped)
            return
        self._on_stopped = on_stopped
        self._failback.stop()
        session, was_up = self._session, self._state == "up"
        self._enter("stopping")
        self._cancel_timer()
        if session is None or not was_up:
            self._give_up()
            if session is not None:
                session.end(None)
            else:
                self._manager.call_soon(self._stopped)
            return
        self._timer = self._manager.create_timer_event(
            max(timeout, 0.001), session.end, None, repeat=False, name="mqtt.stop"
        )
        session.leave()

    # --- connecting

    def _new_round(self, first: int) -> None:
        count = len(self._brokers)
        self._round = [(first + step) % count for step in range(count)]
        self._connect()

    def _connect(self) -> None:
        self._index = self._round.pop(0)
        self._enter("connecting")
        self._dial = Dial(self._manager, Attempt(self.url, self._settings), self._opened, self._not_opened)
        self._dial.start(f"{self._client_id}.{self._index}")

    def _opened(self, attempt: Attempt, wire: Wire) -> None:
        self._note(attempt)
        self._session = Session(
            self._manager, attempt, wire, self._client_id, self._will, self, self._limits[self._index]
        )
        self._session.begin()

    def _not_opened(self, error: LinkError) -> None:
        if self._session is not None:  # no CONNACK in time
            self._session.end(error)
            return
        if self._dial is not None:
            self._note(self._dial.attempt)
        self._lost(error)

    def _give_up(self) -> None:
        dial, self._dial = self._dial, None
        if dial is not None:
            dial.give_up()

    def _note(self, attempt: Attempt) -> None:
        for note in attempt.notes:
            if note not in self._noted:
                self._noted.add(note)
                self._log.warning(note)

    # --- back to the first broker

    def _return(self) -> None:
        """The first broker is good again. Nothing more goes out here; what is in flight is waited for."""
        if self._state != "up" or self._session is None:
            return
        self._returning = True
        self._session.eager()
        # Without an end of it the connection is closed, the broker publishes the Will, and the outbox sends again.
        self._timer = self._manager.create_timer_event(
            _RETURN, self._session.end, None, repeat=False, name="mqtt.return"
        )
        self._take_leave()

    def _take_leave(self) -> None:
        """All is acknowledged: say ``offline`` here, then leave."""
        session = self._session
        if session is None or session.inflight:
            return
        if self._will is not None and not self._farewell:
            self._farewell = True
            session.cork()
            session.publish(*self._will, qos=1, retain=True, token=_FAREWELL)
            session.uncork()
        else:
            session.leave()

    # --- what the session tells

    def session_up(self) -> None:
        if self._dial is not None:
            self._dial.done()
            self._dial = None
        self._enter("up")
        self._failback.up(self._index)
        self._connects += 1
        if times := self._patience.repeated(("up", self.url)):
            self._log.info(
                line(
                    "link.up",
                    url=self.url,
                    version=self._settings.version,
                    client_id=self._client_id,
                    after_s=round(self._since - self._patience.away_since, 1),
                    failures=self._patience.failures,
                    times=times,
                )
            )
        assert self._session is not None
        if not self._session.retains or self._session.max_qos < self._settings.qos:
            self._log.warning(
                line(
                    "link.limited",
                    url=self.url,
                    retain=self._session.retains,
                    max_qos=self._session.max_qos,
                    reason="the broker cannot do more",
                )
            )
        for topic_filter, qos in self._subscriptions.items():
            self._session.subscribe(topic_filter, qos)
        self.on_up()

    def session_acked(self, tokens: list[Any]) -> None:
        self.on_ack([token for token in tokens if token is not _FAREWELL] if self._farewell else tokens)
        if self._returning:
            self._take_leave()

    def session_refused(self, token: Any, topic: str, error: LinkError) -> None:
        if token is not _FAREWELL:
            self.on_refused(token, topic, error)
        if self._returning:
            self._take_leave()

    def session_message(self, message: Message) -> None:
        self.on_message(message)

    def session_ended(self, error: LinkError | None) -> None:
        session, self._session = self._session, None
        returning, self._returning, self._farewell = self._returning, False, False
        self._cancel_timer()
        self._failback.stop()
        if self._state == "stopping":
            self.on_down(None)
            self._stopped()
        elif returning:
            self._enter("backoff")
            self.on_down(None)
            if self._state == "backoff":  # else on_down has stopped us
                self._patience.begin(self._manager.now())
                self._new_round(0)
        else:
            error = error or LinkError("lost", f"{self.url.address} closed the connection")
            self._lost(self._judge(error, session.left) if session is not None else error)

    def _judge(self, error: LinkError, left: list[Sent]) -> LinkError:
        """Whether a packet that is too large for the broker can have been the reason."""
        limit, now = self._limits[self._index], self._manager.now()
        error, certain = limit.judge(error, left, self.url, now)
        if certain:
            self._log.error(line("link.limit", url=self.url, bytes=limit.largest(now), error=error))
        return error

    # --- losing it

    def _lost(self, error: LinkError) -> None:
        """An attempt has failed, or a connection has ended. Once for each of them."""
        self._give_up()
        self._cancel_timer()
        was_up = self._state == "up"
        now = self._manager.now()
        lasted = now - self._since if was_up else None
        verdict = self._patience.failed(error, self.url.address, now, lasted)
        self._failures += 1
        self._last_error = error = verdict.error
        self._enter("backoff")
        next_one = bool(self._round) and not was_up
        if verdict.times:
            self._log.log(
                logging.ERROR if error.reason in HUMAN else logging.WARNING,
                line(
                    "link.down",
                    url=self.url,
                    reason=error.reason,
                    times=verdict.times,
                    retry_s=0 if next_one else round(verdict.pause, 1),
                    error=error,
                ),
            )
        if was_up:
            self.on_down(error)
        if self._state != "backoff":  # on_down has stopped us
            return
        if next_one:
            self._connect()
            return
        # A broker that accepts us and drops us is not asked first again.
        first = (self._index + 1) % len(self._brokers) if lasted is not None and lasted < STABLE else 0
        self._timer = self._manager.create_timer_event(
            verdict.pause, self._new_round, first, repeat=False, name="mqtt.backoff"
        )

    def _stopped(self) -> None:
        self._enter("stopped")
        on_stopped, self._on_stopped = self._on_stopped, None
        if on_stopped is not None:
            on_stopped()

    def _enter(self, state: State) -> None:
        self._state = state
        self._since = self._manager.now()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _nothing(*_args: object) -> None:
    pass
