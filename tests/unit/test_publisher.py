from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from agent.clock import Clock, ClockSettings
from agent.codec import Topics, encode_fields
from agent.codec_formats import make_codec
from agent.errors import LinkError
from agent.events import EventManager, ManualClock
from agent.model import Reading
from agent.mqtt_message import BARE
from agent.mqtt_settings import MqttSettings
from agent.outbox import Outbox
from agent.outbox_settings import OutboxSettings
from agent.publisher import Publisher


class FakeLink:
    """A link whose broker is the test: it takes ``window`` messages and acknowledges when told."""

    def __init__(self, manager: EventManager, window: int = 100) -> None:
        self.on_up: Callable[[], object]
        self.on_down: Callable[[LinkError | None], object]
        self.on_ack: Callable[[list[Any]], object]
        self.on_refused: Callable[[Any, str, LinkError], object]
        self.sent: list[tuple[str, bytes, int, bool]] = []
        self.stopped_at: float | None = None
        self.writes = 0
        self._manager = manager
        self._window = window
        self._flying: list[tuple[int, Any]] = []
        self._up = False
        self._corked = False

    @property
    def room(self) -> int:
        return self._window - len(self._flying) if self._up else 0

    def fits(self, topic: str, size: int) -> bool:
        return len(topic) + size < 10_000

    def publish(
        self, topic: str, payload: bytes, *, qos: int, retain: bool = False, token: Any = None, extra: bytes = BARE
    ) -> bool:
        del extra
        assert self._corked, "one system call for all that a turn publishes"
        if self.room <= 0:
            return False
        self.sent.append((topic, payload, qos, retain))
        self._flying.append((qos, token))
        return True

    def cork(self) -> None:
        self._corked = True

    def hurry(self) -> None: ...

    def uncork(self) -> None:
        self._corked = False
        self.writes += 1
        written = [token for qos, token in self._flying if qos == 0]
        if written:
            self._flying = [each for each in self._flying if each[0]]
            self.on_ack(written)

    def stop(self, on_stopped: Callable[[], object], *, timeout: float = 1.0) -> None:  # noqa: ARG002
        self.stopped_at = self._manager.now()
        self._manager.call_soon(on_stopped)

    # what the broker does

    def connect(self) -> None:
        self._up = True
        self.on_up()

    def lose(self) -> None:
        self._up = False
        self._flying.clear()
        self.on_down(LinkError("lost", "x"))

    def ack(self, count: int = 1_000_000) -> None:
        tokens = [token for _, token in self._flying[:count]]
        del self._flying[:count]
        self.on_ack(tokens)

    def refuse(self) -> None:
        _, token = self._flying.pop(0)
        self.on_refused(token, "t", LinkError("not_authorized", "no", "ask"))

    def payloads(self, ending: str = "telemetry") -> list[Any]:
        return [json.loads(payload) for topic, payload, _, _ in self.sent if topic.endswith(ending)]


class World:
    """A publisher between a fake link and a real outbox; time stands still until the test moves it."""

    def __init__(self, window: int = 100, *, outbox: dict[str, object] | None = None, **settings: object) -> None:
        self.clock = ManualClock()
        self.manager = EventManager(self.clock)
        self.time = Clock(ClockSettings(trust="always"), mono_ns=self.mono_ns, wall_now_ns=self.mono_ns)
        self.outbox = Outbox(self.manager, OutboxSettings(**{"durability": "memory", **(outbox or {})}), self.time)  # type: ignore[arg-type]
        self.link = FakeLink(self.manager, window)
        self.topics = Topics("a")
        self.publisher = Publisher(
            self.manager,
            self.link,  # type: ignore[arg-type]
            self.outbox,
            make_codec(str(settings.get("format", "json")), "a", self.topics, lambda _device: ()),
            self.topics,
            MqttSettings.model_validate(settings),
            self.time,
        )

    def mono_ns(self) -> int:
        return int(self.manager.now() * 1e9)

    def put(self, count: int = 1, device: str = "d", size: int = 1) -> None:
        body = encode_fields({"x": "y" * size})
        self.publisher.accept(
            [Reading(device, self.outbox.next_seq(device), self.mono_ns(), body) for _ in range(count)]
        )

    def run(self, seconds: float = 0.0) -> None:
        self.clock.advance(seconds)
        while self.manager.run_once(0):
            pass

    def seqs(self) -> list[int]:
        found = self.link.payloads()
        return [each["seq"] for item in found for each in (item if isinstance(item, list) else [item])]


def test_a_reading_is_written_within_the_call_that_brings_it() -> None:
    world = World()
    world.link.connect()
    world.link.sent.clear()
    world.put()
    assert [(topic, qos, retain) for topic, _, qos, retain in world.link.sent] == [
        ("outstation/a/d/telemetry", 1, False)
    ]
    assert b"backfill" not in world.link.sent[0][1]


def test_many_readings_at_once_are_one_write() -> None:
    world = World()
    world.link.connect()
    world.link.writes = 0
    world.put(50)
    assert (len(world.seqs()), world.link.writes) == (50, 1)


def test_an_acknowledgement_with_nothing_to_follow_costs_no_write() -> None:
    world = World()
    world.link.connect()
    world.put()
    world.link.writes = 0
    world.link.ack()
    assert (world.link.writes, world.outbox.depth) == (0, 0)


def test_the_birth_is_the_first_thing_said_and_the_report_before_it_is_fresh() -> None:
    world = World()
    world.publisher.before_birth = lambda: world.publisher.retain(world.topics.status, b'"fresh"')
    world.publisher.retain(world.topics.status, b'"stale"')
    world.put()
    world.link.connect()
    assert [(topic.split("/", 2)[2], payload) for topic, payload, _, _ in world.link.sent[:2]] == [
        ("availability", b"online"),
        ("status", b'"fresh"'),
    ]
    assert world.seqs() == [1]


def test_states_wait_for_room_and_only_their_latest_value_goes_out() -> None:
    world = World(window=1)
    world.link.connect()  # "online" fills the window
    for value in (b"1", b"2", b"3"):
        world.publisher.retain(world.topics.status, value)
    world.put()
    assert len(world.link.sent) == 1
    world.link.ack()
    assert world.link.sent[1][1] == b"3", "before the reading"
    world.link.ack()
    assert world.seqs() == [1]


def test_states_are_retained_and_acknowledged_even_where_readings_are_not() -> None:
    world = World(qos=0)
    world.link.connect()
    assert [(qos, retain) for _, _, qos, retain in world.link.sent] == [(1, True)]


def test_at_qos_0_a_large_backlog_goes_out_in_turns_and_without_recursion() -> None:
    world = World(qos=0, window=10)
    world.put(5000)
    world.link.connect()
    assert 0 < len(world.seqs()) <= 10
    world.run()
    assert world.seqs() == list(range(1, 5001))
    assert world.outbox.depth == 0


def test_one_turn_takes_no_more_than_its_share_of_a_backlog() -> None:
    world = World(window=10_000)
    world.put(5000)
    world.link.connect()
    assert len(world.seqs()) <= 1000
    world.run()
    assert world.seqs() == list(range(1, 5001))


def test_what_was_in_flight_and_what_was_only_taken_come_again_in_order() -> None:
    world = World(window=3, batch=2)
    world.put(7, "x")
    world.put(7, "y")
    world.link.connect()
    world.link.lose()
    assert world.publisher.stats().in_flight == 0
    world.link.sent.clear()
    world.link.connect()
    while world.outbox.depth:
        world.link.ack()
    for device in ("x", "y"):
        arrays = world.link.payloads(f"{device}/telemetry")
        assert [reading["seq"] for array in arrays for reading in array] == list(range(1, 8))


@pytest.mark.parametrize(
    ("batch", "shapes"),
    [(1, [dict] * 4), (2, [list, list]), (100, [list]), ("auto", [dict] * 4)],
)
def test_the_form_of_a_message_depends_on_batch_and_not_on_chance(batch: object, shapes: list[type]) -> None:
    world = World(batch=batch)
    world.link.connect()
    world.put(4)
    assert list(map(type, world.link.payloads())) == shapes
    world.put(1)
    assert type(world.link.payloads()[-1]) is (list if isinstance(batch, int) and batch > 1 else dict)


def test_auto_sends_few_readings_one_by_one_and_many_in_arrays_of_a_hundred_at_most() -> None:
    world = World(batch="auto", window=11)
    world.link.connect()
    world.link.ack()
    world.link.sent.clear()
    world.put(4)
    assert [type(payload) for payload in world.link.payloads()] == [dict] * 4
    world.put(250)
    assert [len(payload) for payload in world.link.payloads()[4:]] == [100, 100, 50]


def test_a_refused_reading_is_set_aside_and_the_next_one_goes_on() -> None:
    world = World(window=1)
    world.link.connect()
    world.put(2)
    world.link.ack()
    world.link.refuse()
    assert world.publisher.stats().refused == 1
    assert world.outbox.dropped == {"d": 1}
    world.link.ack()
    assert (world.outbox.depth, world.publisher.stats().acknowledged) == (0, 1)


def test_counts_add_up() -> None:
    world = World(window=5)
    world.put(6)
    world.put(size=20_000)
    world.link.connect()
    world.link.ack(1)
    world.run()
    stats = world.publisher.stats()
    assert (stats.written, stats.acknowledged, stats.in_flight) == (5, 0, 5)
    world.link.ack()
    world.link.ack()
    stats = world.publisher.stats()
    assert (stats.written, stats.acknowledged, stats.in_flight, stats.oversized) == (6, 6, 0, 1)


# ---- the end


def test_the_end_is_readings_then_offline_then_disconnect() -> None:
    world = World()
    left: list[int] = []
    world.link.connect()
    world.put(3)
    world.publisher.drain(10.0, left.append)
    world.run()
    assert world.link.sent[-1][1] != b"offline", "the readings are not acknowledged yet"
    world.link.ack()
    assert world.link.sent[-1][:2] == ("outstation/a/availability", b"offline")
    assert world.link.stopped_at is None, "offline is waited for"
    world.link.ack()
    assert world.link.stopped_at == world.manager.now()
    world.run()
    assert left == [0]


def test_a_deaf_broker_has_until_the_time_out_and_offline_is_said_before_it() -> None:
    world = World()
    left: list[int] = []
    world.link.connect()
    world.put(3)
    begun = world.manager.now()
    world.publisher.drain(8.0, left.append)
    world.run(6.9)
    assert world.link.sent[-1][1] != b"offline"
    world.run(0.2)
    assert world.link.sent[-1][1] == b"offline"
    world.run(0.5)
    assert world.link.stopped_at is not None
    assert world.link.stopped_at - begun <= 8.0
    assert left == [3]


def test_a_link_that_is_away_may_come_back_during_the_stop() -> None:
    world = World()
    left: list[int] = []
    world.put(2)
    world.publisher.drain(8.0, left.append)
    world.run(3.0)
    assert left == []
    world.link.connect()
    world.link.ack()
    world.link.ack()
    world.run()
    assert left == [0]
    assert world.link.sent[-1][1] == b"offline"


def test_with_nothing_left_and_no_link_the_end_comes_at_once() -> None:
    world = World()
    left: list[int] = []
    world.publisher.drain(8.0, left.append)
    world.run()
    assert left == [0]


def test_a_link_lost_while_offline_is_said_ends_the_wait() -> None:
    world = World()
    left: list[int] = []
    world.link.connect()
    world.link.ack()
    world.publisher.drain(8.0, left.append)
    world.link.lose()
    world.run()
    assert left == [0]


def test_nothing_is_published_after_offline() -> None:
    world = World()
    world.link.connect()
    world.link.ack()
    world.publisher.drain(8.0, lambda _left: None)
    world.put(1)
    assert world.link.sent[-1][1] == b"offline"


# ---- answers to commands


def answers(world: World) -> list[str]:
    return [payload.decode() for topic, payload, _, _ in world.link.sent if topic == "r"]


def test_an_answer_goes_out_before_readings_that_wait_and_is_not_retained() -> None:
    world = World(window=2)
    world.link.connect()
    world.link.ack()
    world.put(4)
    world.publisher.answer("r", b"one")
    world.link.ack(1)
    assert world.link.sent[-1] == ("r", b"one", 1, False)
    world.link.ack()
    world.link.ack()
    world.link.ack()
    assert world.seqs() == [1, 2, 3, 4]
    assert world.publisher.stats().in_flight == 0
    assert answers(world) == ["one"]


def test_an_answer_outlives_the_connection_and_no_more_are_kept_than_somebody_waits_for() -> None:
    world = World(window=2)
    world.link.connect()
    world.link.ack()
    world.publisher.answer("r", b"in flight")
    world.link.lose()
    for number in range(100):
        world.publisher.answer("r", b"%d" % number)
    world.link.sent.clear()
    world.link.connect()
    for _ in range(200):
        world.link.ack()
    assert answers(world) == [str(number) for number in range(36, 100)]


def test_an_answer_in_flight_is_sent_again_on_the_next_connection() -> None:
    world = World()
    world.link.connect()
    world.publisher.answer("r", b"one")
    world.publisher.answer("r", b"two")
    world.link.lose()
    world.link.sent.clear()
    world.link.connect()
    world.link.ack()
    world.link.lose()
    world.link.connect()
    assert answers(world) == ["one", "two"], "once more, and not again after its acknowledgement"


def test_at_a_clean_end_answers_go_before_offline() -> None:
    world = World(window=1)
    world.link.connect()
    world.publisher.answer("r", b"last")
    done: list[int] = []
    world.publisher.drain(10.0, done.append)
    for _ in range(3):
        assert not done
        world.link.ack()
        world.run()
    assert done == [0]
    assert [payload for _, payload, _, _ in world.link.sent] == [b"online", b"last", b"offline"]


def test_devices_hear_of_the_link() -> None:
    world = World()
    heard: list[bool] = []
    world.publisher.on_link = heard.append
    world.link.connect()
    world.link.lose()
    world.link.connect()
    assert heard == [True, False, True]
