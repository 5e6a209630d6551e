"""From the outbox to the link: what goes out next, in which message, and what has arrived.

On each connection the retained state goes first (the birth, ``online``, before all), then the readings, oldest first,
as the link's window allows. The outbox forgets a reading on its acknowledgement alone; when the link is lost it hands
out again what was in flight.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from agent.codec import OFFLINE, ONLINE, Codec, Topics, WallClock
from agent.codec_values import ValuesCodec
from agent.errors import LinkError
from agent.events import EventManager, TimerEvent
from agent.logline import Repeats, line
from agent.model import Reading
from agent.mqtt import Link
from agent.mqtt_message import BARE
from agent.mqtt_settings import MqttSettings
from agent.outbox import Outbox
from agent.publisher_answers import Answer, Answers
from agent.publisher_parts import Group, Parted
from agent.publisher_states import State, States
from agent.publisher_stats import PublisherStats
from agent.publisher_stream import TURN, BacklogGroup, Stream

_BACKLOG_SHARE = 0.5  # of the window for the backlog, under live_first: what comes live always finds room
_HELD = 1.0  # seconds until the clock is asked again, where readings are held for it: a slewed clock makes no event
_FAREWELL = 1.0  # seconds of a stop that are kept for "offline" and DISCONNECT


class PublisherClock(WallClock, Protocol):
    """What the publisher needs of ``agent.clock.Clock``."""

    def mono_ns(self) -> int: ...

    def release_before(self) -> int | None: ...


def _nothing(*_: object) -> None:
    pass


class Publisher:
    """Publishes readings and state over one link. All of it runs on the loop's thread."""

    def __init__(
        self,
        manager: EventManager,
        link: Link,
        outbox: Outbox,
        codec: Codec | ValuesCodec,
        topics: Topics,
        settings: MqttSettings,
        clock: PublisherClock,
        *,
        replay_rate: float | None = None,
        log: logging.Logger | None = None,
    ) -> None:
        """replay_rate: readings of the backlog a second at most, under live_first; None: as its share of the window."""
        self._manager = manager
        self._link = link
        self._outbox = outbox
        parted = isinstance(codec, ValuesCodec)
        self._codec: Any = codec  # which of the two it is, the groups of the streams tell
        self._topics = topics
        self._clock = clock
        self._log = log or logging.getLogger("outstation.publisher")
        self._qos = settings.qos
        self._arrays = settings.batch != 1
        self._auto = settings.batch == "auto"
        self._states = States({topics.availability: ONLINE})
        self._answers = Answers()
        rate = replay_rate if outbox.live_first else None
        self._old = Stream(outbox, settings.batch, rate=rate, parted=parted)  # under fifo all there is
        self._live = Stream(outbox, settings.batch, live=True, parted=parted)
        self._old_room = 0  # messages of the backlog that may be in flight, under live_first
        self._careful = False  # one message at a time: parts of an array that was too large for the broker
        self._later: TimerEvent | None = None  # pumps again, where readings are held or may not all go out at once
        self._up = False
        self._connected_ns = 0
        self._pumping = False
        self._again = False
        self._on_drained: Callable[[int], object] | None = None
        self._leaving = False
        self._left_link = False
        self._timer: TimerEvent | None = None
        self._written = 0
        self._acknowledged = 0
        self._in_flight = 0
        self._oversized = 0
        self._refused = 0
        self._repeats = Repeats()
        self.before_birth: Callable[[], object] = _nothing
        """Called on each new connection before anything is sent: the time to bring states up to date."""
        self.on_link: Callable[[bool], object] = _nothing
        """Called with True on each new connection, when its birth is on the way, and with False when it is lost."""
        link.on_up = self._link_up
        link.on_down = self._link_down
        link.on_ack = self._acked
        link.on_refused = self._refuse
        outbox.on_ready = self.pump

    # --- from outside

    def accept(self, readings: Sequence[Reading]) -> None:
        """Keep readings, and send them in this very turn if the link has room."""
        self._outbox.put(readings)  # calls on_ready, which is pump, if there is something to take

    def retain(self, topic: str, payload: bytes, *, again: bool = False) -> None:
        """Publish a state: retained, now and again on each connection; only its latest value counts.

        again: also where the broker has this one already, for somebody who has not.
        """
        if self._states.keep(topic, payload, again=again):
            self.pump()

    def forget(self, topic: str) -> None:
        """Remove a state from the broker, by an empty retained message (MQTT 3.1.1, section 3.3.1.3)."""
        if self._states.has(topic):
            self.retain(topic, b"")

    def answer(self, topic: str, payload: bytes, properties: bytes = BARE) -> None:
        """Publish an answer to who has asked: once, not retained, before readings that wait."""
        self._answers.add(Answer(topic, payload, properties))
        self.pump()

    def drain(self, timeout: float, on_done: Callable[[int], object]) -> None:
        """The clean end: send what is left, then ``offline``, then DISCONNECT.

        on_done(readings left) is called within ``timeout`` seconds. Devices should have stopped before.
        """
        if self._on_drained is not None:
            return
        self._on_drained = on_done
        self._link.hurry()
        farewell = min(_FAREWELL, timeout / 4)
        self._after(timeout - farewell, self._farewell, farewell)
        self._check_drained()

    def stats(self) -> PublisherStats:
        return PublisherStats(self._written, self._acknowledged, self._in_flight, self._oversized, self._refused)

    # --- sending

    def pump(self) -> None:
        """Send what is due, as far as the link has room."""
        if not self._up:
            return
        if not (
            self._states.waiting
            or self._answers.waiting
            or self._old.groups
            or self._live.groups
            or self._outbox.waiting
        ):
            return
        if self._pumping:  # an acknowledgement from within uncork
            self._again = True
            return
        self._pumping = True
        link = self._link
        link.cork()
        try:
            self._states.send(link, self._qos, self._warn)
            self._answers.send(link, self._qos)
            if not self._leaving:
                self._send_readings()
        finally:
            link.uncork()
            self._pumping = False
        if self._again:
            # QoS 0: written is done with, and there is room again. The next lot waits for the next turn.
            self._again = False
            self._manager.call_soon(self.pump)

    def _send_readings(self) -> None:
        until_ns = self._clock.release_before()
        pause = _HELD if until_ns is not None and self._outbox.waiting else 0.0
        if self._outbox.live_first:
            self._send_stream(self._live, self._link.room, until_ns)
            self._send_stream(self._old, min(self._link.room, self._old_room - self._old.flying), until_ns)
            pause = pause or self._old.allowance.pause
        else:
            self._send_stream(self._old, self._link.room, until_ns)
        if pause and self._later is None and self._outbox.waiting:
            self._later = self._manager.create_timer_event(
                pause, self._pump_later, repeat=False, name="publisher.later"
            )

    def _pump_later(self) -> None:
        self._later = None
        self.pump()

    def _send_stream(self, stream: Stream, room: int, until_ns: int | None) -> None:
        link, topics, groups = self._link, self._topics, stream.groups
        taken = 0
        self._careful = self._careful and bool(groups or self._in_flight)
        while room > 0 and not (self._careful and self._in_flight):
            if not groups:
                if taken >= TURN:
                    self._again = True
                    return
                taken += stream.fill(room, until_ns, self._manager.now())
                if not groups:
                    return
            group = groups.popleft()
            if isinstance(group, Parted):
                room -= self._send_parts(stream, group, room)
                if group.waiting:
                    groups.appendleft(group)
                    return
                continue
            topic = topics.telemetry(group[0].device)
            array = len(group) > 1 if self._auto else self._arrays
            payload = self._codec.encode(group, self._clock, self._connected_ns, array)
            if not link.fits(topic, len(payload)):
                self._too_large(stream, topic, group, len(payload))
                continue
            if not link.publish(topic, payload, qos=self._qos, token=group):
                groups.appendleft(group)
                return
            self._written += len(group)
            self._in_flight += len(group)
            stream.flying += type(group) is BacklogGroup
            room -= 1

    def _send_parts(self, stream: Stream, group: Parted, room: int) -> int:
        """Messages of one reading, as many as there is room for; the rest stays in ``waiting``. How many were sent."""
        self._in_flight += group.waiting is None
        sent = group.send(self._link, self._codec, self._qos, room, self._warn)
        stream.flying += sent * group.backlog
        self._written += not group.waiting
        if self._whole(group):  # there was nothing to wait for: no channels, or none that fits
            self._acknowledged += 1
            self._outbox.ack(group)
        return sent

    def _whole(self, group: Parted) -> bool:
        """Whether all messages of it have arrived. Where one never can, and the others have, it is set aside."""
        if group.flying or group.waiting:
            return False
        self._in_flight -= 1
        if group.failure:
            self._oversized += group.failure == "oversized"
            self._refused += group.failure == "refused"
            self._outbox.discard(group)
        return not group.failure

    def _too_large(self, stream: Stream, topic: str, group: Group, size: int) -> None:
        """Halve an array; set aside a single reading that can never be sent, so that it does not cost the link."""
        if len(group) > 1:
            stream.halve(group)
            return
        self._oversized += 1
        self._warn("reading.oversized", topic, seq=group[0].seq, bytes=size, see="mqtt.max_packet")
        self._outbox.discard(group)

    # --- what the link tells

    def _link_up(self) -> None:
        self._connected_ns = self._clock.mono_ns()
        self.before_birth()
        self._up = True
        self._old_room = max(1, int(self._link.room * _BACKLOG_SHARE))
        self._outbox.link_up()
        self._states.again()
        self.pump()
        self.on_link(True)

    def _link_down(self, _error: LinkError | None) -> None:
        self._up = False
        self._in_flight = 0
        self._states.lost()
        self._answers.rewind()
        self._old.clear()
        self._live.clear()
        self._outbox.rewind()
        self.on_link(False)
        if self._on_drained is not None:
            self._check_drained()

    def _acked(self, tokens: list[Any]) -> None:
        done: list[Reading] = []
        for token in tokens:
            if self._landed(token):
                done += token
        if done:
            self._acknowledged += len(done)
            self._outbox.ack(done)
        self._go_on()

    def _refuse(self, token: Any, topic: str, error: LinkError) -> None:
        if isinstance(token, Parted):
            token.failure = "refused"
        readings = self._landed(token)
        if readings and len(token) > 1 and error.reason == "too_large":
            # The array, not its readings. What is in flight behind it comes first this once; its parts go one by one,
            # for they may be too large as well.
            self._careful = True
            live = self._outbox.live_first and type(token) is not BacklogGroup
            (self._live if live else self._old).halve(token)
            self._go_on()
            return
        self._warn("message.refused", topic, reason=error.reason, error=error)
        if readings:
            self._refused += len(token)
            self._outbox.discard(token)
        self._go_on()

    def _landed(self, token: Any) -> bool:
        """A message is not in flight any more. Whether with it all of its readings have landed."""
        if type(token) is State:
            self._states.landed(token)
            return False
        if type(token) is Answer:
            self._answers.landed(token)
            return False
        if isinstance(token, Parted):
            token.flying -= 1
            self._old.flying -= token.backlog
            return self._whole(token)
        self._in_flight -= len(token)
        self._old.flying -= type(token) is BacklogGroup
        return True

    def _go_on(self) -> None:
        self.pump()
        if self._on_drained is not None:
            self._check_drained()

    def _warn(self, event: str, topic: str, **fields: object) -> None:
        if times := self._repeats((event, topic)):
            self._log.error(line(event, topic=topic, times=times, **fields))

    # --- the end

    def _check_drained(self) -> None:
        if self._up and not self._states.settled:
            return
        if self._leaving:
            self._leave()
        elif not self._in_flight and (not self._outbox.depth or self._clock.release_before() is not None):
            self._farewell(_FAREWELL)  # what is held for a true clock stays in the outbox

    def _farewell(self, seconds: float) -> None:
        """Publish offline ourselves, so that a subscriber can tell a clean stop; no reading follows it."""
        if self._leaving:
            return
        self._leaving = True
        self._after(seconds / 2, self._leave, seconds / 2)
        self.retain(self._topics.availability, OFFLINE)
        self._check_drained()

    def _leave(self, seconds: float = _FAREWELL / 2) -> None:
        if self._left_link:
            return
        self._left_link = True
        if self._timer is not None:
            self._timer.cancel()
        self._link.stop(self._left, timeout=seconds)

    def _left(self) -> None:
        on_drained, self._on_drained = self._on_drained, None
        if on_drained is not None:
            on_drained(self._outbox.depth)

    def _after(self, seconds: float, fn: Callable[..., object], *args: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._manager.create_timer_event(
            max(seconds, 0.001), fn, *args, repeat=False, name="publisher.drain"
        )
