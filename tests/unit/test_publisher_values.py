"""One reading in several messages: it leaves the outbox when all of them are acknowledged, and in its order."""

from __future__ import annotations

import pytest
from test_publisher import World

from agent.codec import encode_fields
from agent.errors import LinkError
from agent.model import Reading


class Values(World):
    def __init__(self, window: int = 100, **settings: object) -> None:
        super().__init__(window, format="values", **settings)  # type: ignore[arg-type]

    def say(self, **fields: object) -> None:
        body = encode_fields(fields)  # type: ignore[arg-type]
        self.publisher.accept([Reading("d", self.outbox.next_seq("d"), self.mono_ns(), body)])

    def connect(self) -> None:
        self.link.sent.clear()
        self.link.connect()
        self.link.ack(1)  # "online"

    @property
    def sent(self) -> list[tuple[str, bytes]]:
        """What went out of readings: channel and value."""
        device = "outstation/a/d/"
        return [(t.removeprefix(device), payload) for t, payload, _, _ in self.link.sent if t.startswith(device)]


def test_each_channel_is_a_message_of_its_own_in_the_order_of_the_reading() -> None:
    world = Values(batch=100)
    world.connect()
    world.say(z=21.5, on=True, text='a "b"', none=None, empty="", availability=1, **{"a/b": -3})
    assert world.sent == [
        ("z", b"21.5"),
        ("on", b"true"),
        ("text", b'a "b"'),
        ("none", b"null"),
        ("empty", b""),
        ("availability_", b"1"),
        ("a_b", b"-3"),
    ]
    assert {(qos, retain) for _, _, qos, retain in world.link.sent[1:]} == {(1, False)}


def test_a_reading_is_forgotten_when_the_last_of_its_messages_is_acknowledged() -> None:
    world = Values()
    world.connect()
    world.say(a=1, b=2, c=3)
    for _ in range(2):
        world.link.ack(1)
        assert (world.outbox.depth, world.publisher.stats().acknowledged) == (1, 0)
    world.link.ack(1)
    stats = world.publisher.stats()
    assert (world.outbox.depth, stats.acknowledged, stats.written, stats.in_flight) == (0, 1, 1, 0)


@pytest.mark.parametrize("batch", [100, "auto"])
def test_a_backlog_is_not_put_together_whatever_batch_says(batch: object) -> None:
    world = Values(batch=batch)
    for number in range(8):
        world.say(a=number)
    world.connect()
    assert [payload for _, payload in world.sent[:8]] == [b"%d" % number for number in range(8)]
    world.link.ack()
    assert (world.outbox.depth, world.publisher.stats().acknowledged) == (0, 8)


@pytest.mark.parametrize("window", [1, 2, 3, 4, 7])
def test_a_window_smaller_than_a_reading_keeps_the_order_and_loses_nothing(window: int) -> None:
    world = Values(window)
    world.connect()
    for number in range(4):
        world.say(a=number, b=number, c=number)
    while world.outbox.depth:
        assert 0 < len(world.link._flying) <= window
        world.link.ack(1)
    assert world.sent == [(name, b"%d" % number) for number in range(4) for name in "abc"]
    assert world.publisher.stats().in_flight == 0


@pytest.mark.parametrize("acknowledged", [0, 1, 2, 3])
def test_what_is_half_acknowledged_when_the_link_is_lost_comes_again_whole(acknowledged: int) -> None:
    world = Values(window=2)
    world.connect()
    world.say(a=1, b=2, c=3)
    world.say(a=4, b=5, c=6)
    for _ in range(acknowledged):
        world.link.ack(1)
    world.link.lose()
    assert world.publisher.stats().in_flight == 0
    world.connect()
    while world.outbox.depth:
        world.link.ack(1)
    both = [("a", b"1"), ("b", b"2"), ("c", b"3"), ("a", b"4"), ("b", b"5"), ("c", b"6")]
    assert world.sent == (both[3:] if acknowledged == 3 else both)


def test_a_refused_message_sets_its_reading_aside_once_the_others_have_arrived() -> None:
    world = Values()
    world.connect()
    world.say(a=1, b=2)
    world.say(a=3, b=4)
    world.link.refuse()
    assert (world.outbox.depth, world.publisher.stats().refused) == (2, 0)
    world.link.ack(1)
    stats = world.publisher.stats()
    assert (world.outbox.depth, stats.refused, stats.acknowledged, stats.in_flight) == (1, 1, 0, 1)
    assert world.outbox.dropped == {"d": 1}
    world.link.ack()
    assert (world.outbox.depth, world.publisher.stats().acknowledged) == (0, 1)


def test_a_broker_that_calls_a_value_too_large_does_not_stop_the_next_one() -> None:
    world = Values(window=1)
    world.connect()
    world.say(a=1)
    world.say(a=2)
    _, token = world.link._flying.pop(0)
    world.link.on_refused(token, "t", LinkError("too_large", "no", "ask"))
    world.link.ack()
    assert (world.outbox.depth, world.publisher.stats().refused, world.publisher.stats().acknowledged) == (0, 1, 1)


def test_a_value_that_can_never_be_sent_is_left_out_and_its_reading_counted() -> None:
    world = Values()
    world.connect()
    world.say(a=1, b="x" * 20_000, c=3)
    world.say(b="y" * 20_000)
    assert world.sent == [("a", b"1"), ("c", b"3")]
    world.link.ack()
    stats = world.publisher.stats()
    assert (world.outbox.depth, stats.oversized, stats.acknowledged, stats.in_flight) == (0, 2, 0, 0)


def test_a_reading_without_channels_is_done_with_at_once() -> None:
    world = Values()
    world.connect()
    world.say()
    world.say(a=1)
    assert world.sent == [("a", b"1")]
    world.link.ack()
    stats = world.publisher.stats()
    assert (world.outbox.depth, stats.acknowledged, stats.in_flight) == (0, 2, 0)


def test_at_qos_0_written_is_done_with_for_all_of_them() -> None:
    world = Values(window=2, qos=0)
    for number in range(50):
        world.say(a=number, b=number, c=number)
    world.link.connect()
    world.run()
    assert [payload for _, payload in world.sent] == [b"%d" % number for number in range(50) for _ in "abc"]
    assert (world.outbox.depth, world.publisher.stats().in_flight) == (0, 0)


def test_under_live_first_the_backlog_has_its_share_of_the_window_in_messages() -> None:
    world = Values(window=10, outbox={"replay": "live_first"})
    for number in range(6):
        world.say(old=number, older=number)
    world.link.connect()
    world.link.ack(1)
    assert len(world.link._flying) == 5, "half of the window"
    world.say(live=1)
    assert world.sent[-1] == ("live", b"1")
    while world.outbox.depth:
        world.link.ack(1)
    assert world.publisher._old.flying == 0
    old = [each for each in world.sent if each[0].startswith("old")]
    assert old == [(name, b"%d" % number) for number in range(6) for name in ("old", "older")]


def test_the_end_waits_for_every_message_of_the_last_reading() -> None:
    world = Values(window=1)
    world.connect()
    world.say(a=1, b=2)
    left: list[int] = []
    world.publisher.drain(8.0, left.append)
    world.link.ack(1)
    world.run()
    assert world.sent == [("a", b"1"), ("b", b"2")]
    world.link.ack(1)
    assert world.link.sent[-1][:2] == ("outstation/a/availability", b"offline")
    world.link.ack(1)
    world.run()
    assert left == [0]
