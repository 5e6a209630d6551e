"""Several brokers: over to the next one, and back to the first when it is good for real, with nothing lost."""

from __future__ import annotations

import itertools
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from mqtt_support import (
    CONNACK,
    CONNECT,
    DISCONNECT,
    PATIENCE,
    PUBLISH,
    Packet,
    Peer,
    Rig,
    ScriptedBroker,
    birth,
    rig,
    seqs,
    serve,
)

from agent import mqtt, mqtt_failback
from agent.mqtt_connect import Attempt
from agent.mqtt_probe import probe
from agent.mqtt_settings import MqttSettings
from agent.testing.broker import Broker, BrokerError
from agent.testing.subscriber import Message, Subscriber


def mosquitto(**options: object) -> Broker:
    try:
        return Broker("mosquitto", **options)  # type: ignore[arg-type]
    except BrokerError as error:
        pytest.skip(str(error))


def pair(first: Any, second: Any, **settings: object) -> Rig:
    return rig([first.url, second.url], return_after=0.2, jitter=0.0, **settings)


def away(_peer: Peer) -> None:
    """A first broker that accepts TCP and closes: so that the link begins at the second."""


def probed(peer: Peer) -> None:
    """Answer a probe as a good broker does."""
    peer.accept()
    assert [packet.kind for packet in peer.until_closed()] == [DISCONNECT]


def either(real: Callable[[Peer], object]) -> Callable[[Peer], None]:
    """A good first broker: answers probes, however many there are, and plays real for the link itself."""

    def script(peer: Peer) -> None:
        connect = peer.expect(CONNECT)
        peer.send(CONNACK, b"\x00\x00")
        if connect.body.endswith(b"-probe"):
            assert [packet.kind for packet in peer.until_closed()] == [DISCONNECT]
        else:
            real(peer)

    return script


def numbers(messages: list[Message]) -> list[int]:
    return [message.json()["seq"] for message in messages if message.topic.endswith("/telemetry")]


def test_over_to_the_second_and_back_to_the_first_with_nothing_lost_or_out_of_order() -> None:
    with mosquitto() as first, mosquitto() as second, pair(first, second) as it:
        source = it.manager.create_timer_event(0.005, lambda: it.put(1))
        at_first: list[Message] = []
        at_second: list[Message] = []
        it.link.start()
        with Subscriber(first.url, "outstation/a/d/telemetry", on_message=at_first.append) as subscriber:
            it.until(lambda: it.publisher.stats().acknowledged > 20)
            subscriber.wait_for(lambda _all: len(numbers(at_first)) >= it.publisher.stats().acknowledged)
        with Subscriber(second.url, "outstation/#", on_message=at_second.append) as elsewhere:
            first.kill()
            it.until(lambda: it.link.up and it.link.stats().url == second.url)
            it.until(lambda: it.publisher.stats().acknowledged > 60)
            first.start()
            with Subscriber(first.url, "outstation/a/d/telemetry", on_message=at_first.append) as subscriber:
                it.until(lambda: it.link.up and it.link.stats().url == first.url)
                it.run_for(0.1)
                source.cancel()
                it.until(lambda: it.outbox.depth == 0)
                last = it.outbox.next_seq("d") - 1
                subscriber.wait_for(lambda _all: last in numbers(at_first))
            elsewhere.wait_for(lambda all_: all_[-1].payload == b"offline")
        it.drain_link()
        assert it.outbox.dropped == {}
    one, two = numbers(at_first), numbers(at_second)
    assert sorted(set(one + two)) == list(range(1, last + 1))
    assert one == sorted(set(one)), "in order, and none twice"
    assert two == sorted(set(two))
    came_back = [seq for seq in one if seq > two[0]]
    assert came_back[0] == two[-1] + 1, "the second had acknowledged all before the link left it"


def test_before_it_leaves_all_is_acknowledged_then_offline_is_said_and_nothing_else() -> None:
    seen: list[Packet] = []
    held = threading.Event()

    def second(peer: Peer) -> None:
        birth(peer)
        seen.extend(peer.publishes(2))
        held.wait(PATIENCE)  # the first is good again, and the link waits for these
        assert peer.quiet(0.1), "no other reading"
        peer.ack(*seen)
        farewell = peer.expect(PUBLISH)
        assert (farewell.topic, farewell.payload) == ("outstation/a/availability", b"offline")
        assert (farewell.retain, farewell.qos) == (True, 1)
        assert peer.quiet(0.05)
        peer.ack(farewell)
        assert [packet.kind for packet in peer.until_closed()] == [DISCONNECT]

    got: list[Packet] = []

    def first(peer: Peer) -> None:
        peer.ack(peer.expect(PUBLISH))
        got.extend(peer.publishes(3))
        peer.ack(*got)
        peer.serve()

    with (
        ScriptedBroker(away, either(first)) as one,
        ScriptedBroker(second) as two,
        pair(one, two, ack_timeout=9) as it,
    ):
        it.link.start()
        it.until(lambda: it.link.up)
        it.put(2)
        it.until(lambda: it.link._returning)
        assert it.link.room == 0
        it.put(3)
        it.run_for(0.05)
        held.set()
        it.until(lambda: it.outbox.depth == 0)
        assert it.downs == [None], "as we wanted it: no failure"
        assert it.link.stats().url == one.url
        assert (seqs(seen), seqs(got)) == ([1, 2], [3, 4, 5])
        it.drain_link()


def test_a_second_broker_that_does_not_acknowledge_is_left_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "_RETURN", 0.2)

    def second(peer: Peer) -> None:
        birth(peer)
        peer.publishes(2)
        assert peer.until_closed() == [], "no DISCONNECT: its Will says that we are not there"

    with ScriptedBroker(away, either(Peer.serve)) as one, ScriptedBroker(second) as two, pair(one, two) as it:
        it.link.start()
        it.until(lambda: it.link.up)
        it.put(2)
        it.until(lambda: it.outbox.depth == 0)
        assert it.link.stats().url == one.url
        assert it.outbox.dropped == {}
        it.drain_link()


def refuses(code: int) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        peer.expect(CONNECT)
        peer.send(CONNACK, bytes((0, code)))

    return script


def says(data: bytes) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        peer.expect(CONNECT)
        peer.sock.sendall(data)
        peer.until_closed()

    return script


def mute(peer: Peer) -> None:
    peer.until_closed()


def half(peer: Peer) -> None:
    peer.expect(CONNECT)
    peer.sock.sendall(b"\x20")
    peer.until_closed()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (mute, "timeout"),
        (half, "timeout"),
        (away, "lost"),
        (refuses(5), "not_authorized"),
        (refuses(4), "credentials"),
        (refuses(3), "refused"),
        (says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "protocol"),
        (says(b"\x20\xff\xff\xff\xff\xff"), "protocol"),
        (says(b"\x15\x03\x01\x00\x02\x02\x0a"), "tls"),
    ],
    ids=["mute", "half", "closes", "acl", "password", "unavailable", "http", "garbage", "tls"],
)
def test_a_first_broker_that_takes_tcp_but_not_us_does_not_pull_us_over(
    script: Callable[[Peer], None], reason: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_failback, "_LONGEST", 0.1)
    caplog.set_level("INFO")
    with (
        ScriptedBroker(away, script) as one,
        ScriptedBroker(serve) as two,
        pair(one, two, connect_timeout=0.25) as it,
    ):
        it.link.start()
        it.until(lambda: it.link.up)
        it.manager.create_timer_event(0.01, lambda: it.put(1))
        it.until(lambda: one.connections >= 4)
        it.until(lambda: it.publisher.stats().acknowledged > 10)
        assert (it.ups, it.downs) == (1, [])
        assert it.link.stats().failures == 1, "probes are none of the link's failures"
        lines = [record.message for record in caplog.records if record.message.startswith("link.away")]
        assert f"reason={reason} times=1" in lines[0]
        it.until(lambda: it.outbox.depth == 0)


def test_a_black_hole_on_the_way_to_the_first_holds_up_nothing() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as hole,
        ScriptedBroker(serve) as two,
        rig([f"mqtts://127.0.0.1:{hole.getsockname()[1]}", two.url], return_after=0.1, connect_timeout=30) as it,
    ):
        it.link.start()
        hole.settimeout(PATIENCE)
        hole.accept()[0].close()  # the link's own attempt: closed, so that the next broker's turn comes
        it.until(lambda: it.link.up)
        source = it.manager.create_timer_event(0.01, lambda: it.put(1))
        it.until(lambda: select.select([hole], [], [], 0)[0])
        probing, _ = hole.accept()
        before = it.publisher.stats().acknowledged
        it.until(lambda: it.publisher.stats().acknowledged > before + 5)
        assert (it.ups, it.downs) == (1, [])
        source.cancel()
        begun = time.monotonic()
        it.drain_link()
        assert time.monotonic() - begun < 4.0, "a probe under way holds up no stop"
        probing.settimeout(PATIENCE)
        while probing.recv(4096):
            pass  # ClientHello, then the end
        probing.close()


def test_a_first_broker_that_flaps_is_not_returned_to_before_it_is_steady() -> None:
    flapping = [probed, away] * 6
    with (
        ScriptedBroker(away, *flapping, either(Peer.serve)) as one,
        ScriptedBroker(serve) as two,
        rig([one.url, two.url], return_after=0.5, jitter=0.0) as it,
    ):
        it.link.start()
        it.until(lambda: one.connections > len(flapping))
        assert it.ups == 1
        it.until(lambda: it.link.stats().url == one.url, 20.0)


def test_one_that_takes_the_probe_but_not_us_is_tried_more_and_more_seldom() -> None:
    tries: list[float] = []

    def first(peer: Peer) -> None:
        connect = peer.expect(CONNECT)
        if connect.body.endswith(b"-probe"):
            peer.send(CONNACK, b"\x00\x00")
            peer.until_closed()
            return
        tries.append(time.monotonic())
        peer.send(CONNACK, b"\x00\x05")

    with (
        ScriptedBroker(first) as one,
        ScriptedBroker(*[serve] * 9) as two,
        rig([one.url, two.url], return_after=0.2, jitter=0.0) as it,
    ):
        it.link.start()
        it.until(lambda: len(tries) == 4, 20.0)
        it.until(lambda: it.link.up and it.link.stats().url == two.url)
        waits = [late - early for early, late in itertools.pairwise(tries)]
        assert waits[0] >= 0.2
        assert waits[1] >= 0.4
        assert waits[2] >= 0.8
        it.put(3)
        it.until(lambda: it.outbox.depth == 0)
        assert it.outbox.dropped == {}


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_a_probe_says_who_we_are_under_an_id_of_its_own_without_a_will_and_leaves(version: str, tmp_path: Any) -> None:
    password = tmp_path / "password"
    password.touch(mode=0o600)
    password.write_text("secret")
    bodies: list[bytes] = []

    def asked(peer: Peer) -> None:
        bodies.append(peer.accept().body)
        assert [packet.kind for packet in peer.until_closed()] == [DISCONNECT]

    with (
        ScriptedBroker(away, asked) as one,
        ScriptedBroker(serve) as two,
        pair(one, two, version=version, username="bob", password_file=password) as it,
    ):
        it.link.start()
        it.until(lambda: bodies)
    level, properties = (b"\x05", b"\x00") if version == "5" else (b"\x04", b"")
    who = b"\x00\x12outstation-a-probe\x00\x03bob\x00\x06secret"
    assert bodies[0] == b"\x00\x04MQTT" + level + b"\xc2\x00\x3c" + properties + who


def test_a_probe_goes_over_tls() -> None:
    with mosquitto(tls=True) as broker:
        made = MqttSettings.model_validate(broker.settings)
        probe(Attempt(made.brokers()[0], made), "outstation-a-probe")
        assert "outstation-a-probe" in broker.log


def test_a_probe_goes_over_a_websocket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    with mosquitto(config=f"listener {port} 127.0.0.1\nprotocol websockets") as broker:
        made = MqttSettings.model_validate({"urls": [f"ws://127.0.0.1:{port}"]})
        with rig(made.urls) as it:  # it opens this port after the one that the fixture waits for
            it.link.start()
            it.until(lambda: it.link.up)
        probe(Attempt(made.brokers()[0], made), "outstation-a-probe")
        assert "outstation-a-probe" in broker.log


def test_never_means_never() -> None:
    with (
        ScriptedBroker(away) as one,
        ScriptedBroker(serve) as two,
        rig([one.url, two.url], return_after="never") as it,
    ):
        it.link.start()
        it.until(lambda: it.link.up)
        it.run_for(0.5)
        assert one.connections == 1


def test_no_probe_while_the_link_is_at_the_first_or_away_from_all_or_about_to_stop() -> None:
    with ScriptedBroker(serve) as one, ScriptedBroker(serve) as two, pair(one, two) as it:
        it.link.start()
        it.until(lambda: it.link.up)
        it.run_for(0.3)
        assert (one.connections, two.connections) == (1, 0)
    with ScriptedBroker(away, probed) as one, ScriptedBroker(serve) as two, pair(one, two) as it:
        it.link.start()
        it.until(lambda: it.link.up)
        it.link.hurry()
        before = one.connections
        it.run_for(0.3)
        assert one.connections == before


def test_a_stop_in_the_middle_of_a_return_ends_in_time() -> None:
    def second(peer: Peer) -> None:
        birth(peer)
        peer.publishes(1)
        peer.until_closed()

    with ScriptedBroker(away, probed) as one, ScriptedBroker(second) as two, pair(one, two) as it:
        it.link.start()
        it.until(lambda: it.link.up)
        it.put(1)
        it.until(lambda: it.link._returning)
        assert it.drain(1.0) == 1


def test_a_second_broker_that_is_lost_during_the_return_costs_nothing() -> None:
    def second(peer: Peer) -> None:
        birth(peer)
        peer.publishes(2)
        go.wait(PATIENCE)
        peer.reset()

    go = threading.Event()
    with ScriptedBroker(away, either(Peer.serve)) as one, ScriptedBroker(second) as two, pair(one, two) as it:
        it.link.start()
        it.until(lambda: it.link.up)
        it.put(2)
        it.until(lambda: it.link._returning)
        go.set()
        it.until(lambda: it.outbox.depth == 0)
        assert (it.link.stats().url, it.outbox.dropped, it.link.stats().failures) == (one.url, {}, 1)
        it.drain_link()
