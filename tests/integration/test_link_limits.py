"""What a broker does not take: too large, not allowed, too much. Set aside and counted, or kept, and never a loop."""

from __future__ import annotations

import logging

import pytest
from mqtt_support import (
    DISCONNECT,
    PUBLISH,
    Packet,
    Peer,
    ScriptedBroker,
    birth,
    rig,
    seqs,
    serve,
)

from agent import mqtt_backoff
from agent.testing.broker import Broker, BrokerError
from agent.testing.subscriber import Message, Subscriber


def mosquitto(**options: object) -> Broker:
    try:
        return Broker("mosquitto", **options)  # type: ignore[arg-type]
    except BrokerError as error:
        pytest.skip(str(error))


def readings(messages: list[Message]) -> list[int]:
    """The seq of each reading that came, in the order of arrival."""
    parts = [message.json() for message in messages if message.topic.endswith("/telemetry")]
    return [one["seq"] for part in parts for one in (part if isinstance(part, list) else [part])]


def test_an_array_that_the_broker_finds_too_large_is_halved_and_its_readings_arrive() -> None:
    with (
        mosquitto(config="message_size_limit 1000") as broker,
        Subscriber(broker.url, "outstation/#") as subscriber,
        rig(broker.url, version="5", batch=100) as it,
    ):
        it.put(50)
        it.link.start()
        it.until(lambda: it.outbox.depth == 0, 30.0)
        assert (it.publisher.stats().refused, it.outbox.dropped, it.ups) == (0, {}, 1)
        subscriber.wait_for(lambda messages: len(readings(messages)) >= 50)
        assert readings(subscriber.messages) == list(range(1, 51))
        it.drain_link()


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_a_reading_larger_than_the_brokers_packets_is_set_aside_and_all_others_arrive(
    version: str, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        mosquitto(config="max_packet_size 2000") as broker,
        Subscriber(broker.url, "outstation/#") as subscriber,
        rig(broker.url, version=version) as it,
    ):
        it.put(3)
        it.put(1, text="y" * 5000)
        it.put(3)
        it.link.start()
        it.until(lambda: it.outbox.depth == 0, 30.0)
        stats = it.publisher.stats()
        assert (stats.oversized, it.outbox.dropped, stats.acknowledged) == (1, {"d": 1}, 6)
        ups = it.ups
        it.put(1, text="y" * 6000)  # what has been learnt holds
        it.put(1)
        it.until(lambda: it.outbox.depth == 0)
        assert (it.ups, it.publisher.stats().oversized) == (ups, 2)
        assert ups == (1 if version == "5" else 7)
        it.drain_link()
        messages = subscriber.wait_for(lambda all_: all_ if 9 in readings(all_) else None)
    assert list(dict.fromkeys(readings(messages))) == [1, 2, 3, 5, 6, 7, 9]
    if version == "3.1.1":
        errors = [record.message for record in caplog.records if record.levelno == logging.ERROR]
        assert ["link.limit" in error for error in errors] == [True, False, False], errors
        assert "bytes=5" in errors[0]
        assert "another client" not in caplog.text, "nor is it taken for that"


def test_an_array_that_is_too_large_for_a_broker_that_does_not_say_so_is_halved_and_nothing_is_lost() -> None:
    with (
        mosquitto(config="max_packet_size 3000") as broker,
        Subscriber(broker.url, "outstation/#") as subscriber,
        rig(broker.url, batch=100) as it,
    ):
        it.put(300, x=1.5)
        it.link.start()
        it.until(lambda: it.outbox.depth == 0, 45.0)
        assert it.outbox.dropped == {}
        it.drain_link()
        messages = subscriber.wait_for(lambda all_: all_ if 300 in readings(all_) else None)
    assert list(dict.fromkeys(readings(messages))) == list(range(1, 301))


def test_a_payload_that_mqtt_5_refuses_as_too_large_is_set_aside_without_a_new_connection() -> None:
    with mosquitto(config="message_size_limit 1000") as broker, rig(broker.url, version="5") as it:
        it.put(1)
        it.put(1, text="y" * 2000)
        it.put(1)
        it.link.start()
        it.until(lambda: it.outbox.depth == 0)
        stats = it.publisher.stats()
        assert (stats.refused, stats.acknowledged, it.ups) == (1, 2, 1)
        it.put(1, text="y" * 3000)
        it.until(lambda: it.outbox.depth == 0)
        assert (it.publisher.stats().oversized, it.ups) == (1, 1), "the second one is not even sent"
        it.drain_link()


def test_a_topic_that_the_broker_does_not_authorise_is_named_and_costs_no_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with mosquitto(config="") as probe:
        home = probe._home
        acl = home / "acl"
        acl.write_text("topic readwrite outstation/a/availability\ntopic readwrite outstation/a/good/#\n")
        with mosquitto(config=f"acl_file {acl}") as broker, rig(broker.url, version="5") as it:
            for _ in range(5):
                it.put(1, "good")
                it.put(1, "bad")
            it.link.start()
            it.until(lambda: it.outbox.depth == 0)
            stats = it.publisher.stats()
            assert (stats.acknowledged, stats.refused, it.outbox.dropped, it.ups) == (5, 5, {"bad": 5}, 1)
            it.drain_link()
    lines = [record.message for record in caplog.records if "message.refused" in record.message]
    assert "reason=not_authorized" in lines[0]
    assert "outstation/a/bad/telemetry" in lines[0]
    assert len(lines) == 3, "the 1st, 2nd and 4th"


def test_a_quota_is_named_waited_for_and_nothing_is_lost(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_backoff, "_SLOW", 1.0)

    def first(peer: Peer) -> None:
        birth(peer)
        peer.ack(*peer.publishes(3), code=0x97)
        peer.until_closed()

    with ScriptedBroker(first, serve) as broker, rig(broker.url, version="5", jitter=0.0) as it:
        it.put(3)
        it.link.start()
        it.until(lambda: it.downs)
        assert it.error.reason == "quota"
        it.run_for(0.5)
        assert it.ups == 1, "not asked again at once"
        it.until(lambda: it.outbox.depth == 0)
        assert (it.publisher.stats().acknowledged, it.outbox.dropped) == (3, {})
        it.drain_link()
    assert "reason=quota" in caplog.text


# ---- brokers that close for another reason must not cost a reading


def closes_after(count: int, until: list[int], *, ack: bool) -> list[object]:
    """Scripts: each connection is closed after so many PUBLISH, the first ones of them acknowledged."""

    def script(peer: Peer) -> None:
        peer.accept()
        for number in range(1, count + 1):
            packet = peer.expect(PUBLISH)
            if number < count or ack:
                peer.ack(packet)
        until.append(1)

    return [script]


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("ack", [False, True])
@pytest.mark.parametrize("size", [1, 2000])
def test_a_broker_that_closes_after_each_few_messages_takes_no_reading_from_us(
    count: int, ack: bool, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_backoff, "_SLOW", 0.02)  # it looks like a second agent of the same name
    ends: list[int] = []
    bad = closes_after(count, ends, ack=ack)
    with ScriptedBroker(*bad * 15, serve) as broker, rig(broker.url, retry_min=0.01, retry_max=0.02) as it:  # type: ignore[arg-type]
        it.put(10, text="x" * size)
        it.link.start()
        it.until(lambda: it.outbox.depth == 0 or len(ends) >= 15, 30.0)
        it.until(lambda: it.outbox.depth == 0, 30.0)
        assert it.outbox.dropped == {}
        it.drain_link()


def test_one_under_suspicion_goes_alone_and_what_was_taken_is_not_suspected_again() -> None:
    """Three ends over the same large message; then the broker has come to its senses."""

    def bad(peer: Peer) -> None:
        birth(peer)
        peer.publishes(3)

    got: list[Packet] = []

    def good(peer: Peer) -> None:
        birth(peer)
        got.append(peer.expect(PUBLISH))  # the small one before it
        assert peer.quiet(0.1), "first what is in flight"
        peer.ack(got[0])
        got.append(peer.expect(PUBLISH))
        assert (got[1].topic, got[1].payload) == ("outstation/a/availability", b"online")
        assert peer.quiet(0.1)
        peer.ack(got[1])
        got.append(peer.expect(PUBLISH))
        assert peer.quiet(0.1), "nothing beside it"
        peer.ack(got[2])
        peer.serve()

    with ScriptedBroker(bad, bad, bad, good) as broker, rig(broker.url, retry_min=0.01) as it:
        it.put(1)
        it.put(1, text="y" * 5000)
        it.put(1)
        it.link.start()
        it.until(lambda: it.link.stats().failures == 3)
        assert it.error.reason == "too_large"
        assert "5" in str(it.error)
        it.until(lambda: it.outbox.depth == 0)
        assert it.outbox.dropped == {}
        assert seqs(got) == [1, 2]
        it.put(2, text="y" * 4000)
        it.until(lambda: it.outbox.depth == 0)
        it.drain_link()


def test_mqtt_5s_disconnect_for_a_packet_too_large_is_taken_at_its_word() -> None:
    large: list[int] = []

    def script(peer: Peer) -> None:
        peer.accept()
        while True:
            packet = peer.expect(PUBLISH)
            if len(packet.payload) > 1000:
                large.append(len(packet.payload))
                peer.send(DISCONNECT, b"\x95\x00")
                peer.until_closed()
                return
            peer.ack(packet)
            if it.outbox.depth == 1 and not it.outbox.waiting:
                break
        peer.serve()

    with ScriptedBroker(script, script, serve) as broker, rig(broker.url, version="5") as it:
        it.put(1)
        it.put(1, text="y" * 5000)
        it.put(1)
        it.link.start()
        it.until(lambda: it.outbox.depth == 0)
        assert (it.publisher.stats().oversized, len(large), it.ups) == (1, 2, 3)
        it.drain_link()


def test_an_oversized_state_is_left_out_and_the_readings_arrive() -> None:
    with mosquitto(config="max_packet_size 2000") as broker, rig(broker.url) as it:
        it.publisher.retain(it.topics.status, b"x" * 3000)
        it.put(3)
        it.link.start()
        it.until(lambda: it.outbox.depth == 0, 30.0)
        assert it.outbox.dropped == {}
        ups = it.ups
        it.put(3)
        it.until(lambda: it.outbox.depth == 0)
        assert it.ups == ups
        it.drain_link()
