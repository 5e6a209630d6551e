"""One connection over a socket pair: no network, no clock, and the order of things to the call."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any, Self

import pytest

from agent.errors import LinkError
from agent.events import EventManager, ManualClock
from agent.mqtt_client import Client
from agent.mqtt_connect import Attempt
from agent.mqtt_limit import PacketLimit
from agent.mqtt_message import Message
from agent.mqtt_session import Session
from agent.mqtt_settings import MqttSettings, parse_url
from agent.mqtt_wire import Wire

CONNACK = b"\x20\x02\x00\x00"
CONNACK_5 = b"\x20\x03\x00\x00\x00"


class Line:
    """A session that is up, and the broker's end of its connection."""

    def __init__(
        self,
        version: str = "3.1.1",
        pair: tuple[socket.socket, socket.socket] | None = None,
        connack: bytes | None = None,
        **settings: Any,
    ) -> None:
        self.clock = ManualClock()
        self.failures: list[BaseException] = []
        self.manager = EventManager(self.clock, on_callback_error=lambda _event, error: self.failures.append(error))
        ours, self.broker = pair or socket.socketpair()
        self.broker.settimeout(5)
        self.wire = Wire(ours)
        made = MqttSettings.model_validate({"version": version, **settings})
        self.limit = PacketLimit()
        self.session = Session(
            self.manager,
            Attempt(parse_url("mqtt://broker"), made),
            self.wire,
            "id",
            ("will", b"offline"),
            self,
            self.limit,
        )
        self.ups = 0
        self.ends: list[LinkError | None] = []
        self.acked: list[Any] = []
        self.refused: list[tuple[Any, str]] = []
        self.messages: list[tuple[str, bytes, bool]] = []
        self.session.begin()
        self.broker.recv(4096)
        self.say(connack or (CONNACK_5 if version == "5" else CONNACK))
        assert self.ups == 1 or connack

    # what the session tells

    def session_up(self) -> None:
        self.ups += 1

    def session_acked(self, tokens: list[Any]) -> None:
        self.acked += tokens

    def session_refused(self, token: Any, topic: str, error: LinkError) -> None:  # noqa: ARG002
        self.refused.append((token, error.reason))

    def session_message(self, message: Message) -> None:
        self.messages.append(message[:3])

    def session_ended(self, error: LinkError | None) -> None:
        self.ends.append(error)

    # what the test does

    def say(self, data: bytes) -> None:
        self.broker.sendall(data)
        if self.broker.family == socket.AF_INET:  # wait for its arrival, without taking it
            with socket.socket(fileno=os.dup(self.wire.fileno())) as ours:
                ours.setblocking(True)
                ours.recv(len(data), socket.MSG_PEEK | socket.MSG_WAITALL)
                ours.setblocking(False)
        self.turn()

    def turn(self) -> None:
        while self.manager.run_once(0):
            pass

    def publish(self, count: int = 1, qos: int = 1) -> None:
        self.session.cork()
        for n in range(count):
            assert self.session.publish("t", b"x", qos, False, n)
        self.session.uncork()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.session.end(None)
        self.broker.close()
        self.manager.close()
        assert self.failures == []


@pytest.fixture
def line() -> Iterator[Line]:
    with Line() as line:
        yield line


@pytest.fixture
def tcp() -> Iterator[Line]:
    """Over TCP, where the kernel minds SO_RCVLOWAT."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        broker, _ = listener.accept()
    broker.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with Line(pair=(ours, broker)) as line:
        yield line


def test_all_that_a_turn_publishes_is_one_segment(line: Line) -> None:
    line.publish(3)
    assert line.broker.recv(4096) == b"".join(b"\x32\x06\x00\x01t" + bytes((0, mid)) + b"x" for mid in (1, 2, 3))


def test_acknowledgements_of_one_segment_come_in_one_call(line: Line) -> None:
    calls: list[list[Any]] = []
    line.session_acked = calls.append  # type: ignore[method-assign]
    line.publish(3)
    line.say(b"\x40\x02\x00\x01\x40\x02\x00\x03\x40\x02\x00\x63\x40\x02\x00\x01")
    assert calls == [[0, 2]], "an unknown one and a second one mean nothing"
    assert line.session.inflight == 1


def test_a_packet_may_come_byte_by_byte(line: Line) -> None:
    line.publish()
    for byte in b"\x40\x02\x00\x01":
        line.say(bytes((byte,)))
    assert line.acked == [0]


def test_the_brokers_last_words_outweigh_a_broken_pipe() -> None:
    with Line("5") as line:
        line.publish(2)
        line.broker.sendall(b"\x40\x02\x00\x01" + b"\xe0\x02\x8e\x00")
        line.broker.close()
        line.publish()  # the pipe breaks here, before anything was read
        line.turn()
        assert line.acked == [0]
        assert [error.reason for error in line.ends if error] == ["taken_over"]


def test_what_an_acknowledgement_sets_off_may_meet_a_connection_that_is_gone() -> None:
    with Line("5") as line:
        tried: list[bool] = []

        def acked(_tokens: list[Any]) -> None:
            line.session.cork()
            tried.append(line.session.publish("t", b"x", 1, False, "next"))
            line.session.uncork()

        line.publish()
        line.session_acked = acked  # type: ignore[method-assign]
        line.say(b"\x40\x02\x00\x01" + b"\xe0\x02\x8e\x00")
        assert tried == [False]
        assert [error.reason for error in line.ends if error] == ["taken_over"]


def test_a_broker_far_away_is_listened_to_at_once(tcp: Line) -> None:
    for mid in (1, 2, 3):  # its answers take longer than the timer waits
        tcp.publish()
        tcp.clock.advance(0.21)
        tcp.turn()
        tcp.say(b"\x40\x02\x00" + bytes((mid,)))
    tcp.publish()
    tcp.say(b"\x40\x02\x00\x04")
    assert len(tcp.acked) == 4


def test_what_paho_raises_ends_the_connection_and_nothing_else(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    def loop_read(_self: Client, _max: int = 1) -> None:
        raise IndexError("bytearray index out of range")  # as 2.1.0 does on a short packet

    monkeypatch.setattr(Client, "loop_read", loop_read)
    line.say(b"\xd0\x00")
    assert [error.reason for error in line.ends if error] == ["protocol"]
    assert line.wire.fileno() == -1


@pytest.mark.parametrize("ending", [b"", b"\xf0\x00"], ids=["closed", "garbage"])
def test_the_descriptor_is_unwatched_before_it_is_closed(line: Line, ending: bytes) -> None:
    seen: list[tuple[bool, int]] = []
    unwatch = line.wire.on_close

    def on_close() -> None:
        unwatch()
        seen.append((line.wire.fileno() >= 0, line.manager.stats().descriptors))

    line.wire.on_close = on_close
    line.broker.sendall(ending)
    line.broker.close()
    line.turn()
    assert seen[0] == (True, 0), "still open, and no longer watched"
    assert len(line.ends) == 1


def test_the_end_is_told_once(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    first = LinkError("timeout", "silence")

    def ended(error: LinkError | None) -> None:
        line.ends.append(error)
        line.session.end(None)

    monkeypatch.setattr(line, "session_ended", ended)
    line.session.end(first)
    line.session.end(LinkError("lost", "again"))
    assert line.ends == [first]


def test_qos_0_leaves_nothing_behind(line: Line) -> None:
    for _ in range(50):
        line.publish(10, qos=0)
        line.broker.recv(4096)
    assert len(line.acked) == 500
    assert (line.session.inflight, line.session._acked, len(line.session._client._out_packet)) == (0, [], 0)


def test_qos_0_is_done_with_once_all_of_it_is_written(line: Line) -> None:
    size = 3_000_000  # far more than the socket's buffer
    line.session.cork()
    assert line.session.publish("t", b"x" * size, 0, False, "token")
    line.session.uncork()
    assert line.acked == []
    got = 0
    while got < size:
        got += len(line.broker.recv(65_536))
        line.turn()
    assert line.acked == ["token"]


def test_acknowledgements_are_read_along_with_the_next_message_or_soon_after(tcp: Line) -> None:
    tcp.publish()
    tcp.say(b"\x40\x02\x00\x01")
    assert tcp.acked == [], "four bytes wake nobody"
    tcp.publish()
    assert tcp.acked == [0], "read with the next message"
    tcp.say(b"\x40\x02\x00\x02")
    tcp.clock.advance(0.21)
    tcp.turn()
    assert tcp.acked == [0, 0]


@pytest.mark.parametrize("why", ["many", "slow", "wanted", "subscribed"])
def test_acknowledgements_that_matter_are_read_as_they_come(tcp: Line, why: str) -> None:
    if why == "many":  # more than half of the window
        tcp.publish(51)
    elif why == "slow":  # the broker has not answered within the time
        tcp.publish()
        tcp.clock.advance(0.21)
        tcp.turn()
    elif why == "wanted":
        tcp.publish()
        tcp.session.eager()
    else:
        tcp.publish()
        tcp.session.subscribe("t/#", 1)
    tcp.say(b"\x40\x02\x00\x01")
    assert tcp.acked == [0]


def test_the_end_of_the_connection_is_never_slept_through(tcp: Line) -> None:
    tcp.publish()
    tcp.broker.close()
    tcp.turn()
    assert len(tcp.ends) == 1


def test_what_is_given_up_is_not_sent_later(tcp: Line) -> None:
    tcp.session.cork()
    while not tcp.wire.backlog:  # until the kernel takes no more
        assert tcp.session.publish("t", bytes(1_000_000), 1, False, "token")
        tcp.wire.flush()
    tcp.clock.advance(61)
    tcp.turn()
    assert [error.reason for error in tcp.ends if error] == ["timeout"]
    with pytest.raises(ConnectionResetError):
        b"".join(iter(partial(tcp.broker.recv, 65_536), b""))


def test_leaving_sends_what_is_held_back_then_disconnect_then_waits_for_the_broker_to_close(line: Line) -> None:
    line.session.cork()
    line.session.publish("t", b"x", 1, False, "token")
    line.session.leave()
    line.turn()
    assert line.broker.recv(4096) == b"\x32\x06\x00\x01t\x00\x01x\xe0\x00"
    assert line.broker.recv(4096) == b""
    assert (line.ends, line.session.room) == ([], 0)
    line.broker.close()
    line.turn()
    assert line.ends == [None]


def test_silence_is_counted_from_the_last_byte() -> None:
    with Line(keepalive=60) as line:
        for _ in range(8):  # something comes every 50 s: never a reason to leave
            line.clock.advance(50)
            line.say(b"\xd0\x00")
        assert line.ends == []
        for _ in range(4):
            line.clock.advance(15)
            line.turn()
        assert line.ends == [], "a ping has gone out, and its answer may take a while"
        for _ in range(2):
            line.clock.advance(15)
            line.turn()
        assert [error.reason for error in line.ends if error] == ["timeout"]


def test_a_keepalive_costs_four_wake_ups() -> None:
    with Line(keepalive=60) as line:
        fired = 0
        for _ in range(60):
            line.clock.advance(1.0)
            fired += line.manager.run_once(0)
        assert fired == 4


def test_the_oldest_message_decides_when_the_acknowledgement_is_overdue() -> None:
    with Line(ack_timeout=20, keepalive=600) as line:
        line.publish()
        line.clock.advance(15)
        line.turn()
        line.say(b"\x40\x02\x00\x01")
        line.publish()
        line.clock.advance(15)  # 30 s after the first, 15 after the second
        line.turn()
        assert line.ends == []
        line.clock.advance(5)
        line.turn()
        assert len(line.ends) == 1
        assert "acknowledged" in str(line.ends[0])


@pytest.mark.parametrize(
    ("properties", "word", "value"),
    [(b"\x24\x01", "max_qos", 1), (b"\x25\x00", "retains", False), (b"\x21\x00\x07", "window", 7)],
)
def test_what_an_mqtt_5_broker_cannot_do_is_not_asked_of_it(properties: bytes, word: str, value: object) -> None:
    ours, broker = socket.socketpair()
    line = Line.__new__(Line)
    with EventManager(ManualClock()) as manager, broker:
        line.ups = 0
        attempt = Attempt(parse_url("mqtt://b"), MqttSettings.model_validate({"version": "5"}))
        session = Session(manager, attempt, Wire(ours), "id", None, line, PacketLimit())
        session.begin()
        body = b"\x00\x00" + bytes((len(properties),)) + properties
        broker.sendall(b"\x20" + bytes((len(body),)) + body)
        manager.run_once(0)
        assert getattr(session, word) == value
        broker.recv(4096)
        session.cork()
        session.publish("t", b"x", 2, True, None)
        session.uncork()
        first = broker.recv(4096)[0]
        assert first >> 1 & 3 <= session.max_qos
        assert bool(first & 1) == session.retains
        line.ends = []
        session.end(None)


def answer_in_turn(line: Line, count: int, every: float) -> None:
    for mid in range(1, count + 1):
        line.clock.advance(every)
        line.say(b"\x40\x02\x00" + bytes((mid,)))


def test_on_a_slow_link_those_before_a_message_are_none_of_its_delay() -> None:
    with Line(ack_timeout=20, keepalive=600) as line:
        line.publish(5)
        answer_in_turn(line, 4, 15.0)  # the last of them is 60 s old by now
        assert line.ends == []
        line.clock.advance(19)
        line.turn()
        assert line.ends == []
        line.clock.advance(1.5)
        line.turn()
        assert [error.reason for error in line.ends if error] == ["timeout"]


def test_a_message_that_others_overtake_is_overdue_by_its_own_time() -> None:
    with Line(ack_timeout=20, keepalive=600) as line:
        line.publish(3)
        line.clock.advance(15)
        line.say(b"\x40\x02\x00\x02")
        line.clock.advance(4)
        line.say(b"\x40\x02\x00\x03")
        line.clock.advance(1.5)
        line.turn()
        assert [error.reason for error in line.ends if error] == ["timeout"]


@pytest.mark.parametrize("code", [0x95, 0x87, 0xFF])
def test_a_reason_that_the_standard_does_not_list_for_a_puback_is_read_all_the_same(code: int) -> None:
    with Line("5") as line:
        line.publish(2)
        line.say(b"\x40\x04\x00\x01" + bytes((code, 0)) + b"\x40\x03\x00\x02\x10")
        if code == 0xFF:
            assert (line.ends[0].reason if line.ends[0] else "") == "refused"
            assert "0xFF" in str(line.ends[0])
        else:
            assert line.refused == [(0, {0x95: "too_large", 0x87: "not_authorized"}[code])]
            assert line.ends == []
        assert line.acked == [1]


def test_what_the_broker_calls_too_large_is_the_limit_from_now_on() -> None:
    with Line("5") as line:
        line.publish()
        line.say(b"\x40\x04\x00\x01\x95\x00")
        assert line.session.max_packet == 11, "one less than topic, payload and ten bytes around them"
        assert line.limit.largest(line.clock.now()) == 11


def test_a_refusal_at_qos_2_ends_the_exchange_there() -> None:
    with Line("5") as line:
        line.publish(2, qos=2)
        line.broker.recv(4096)
        line.say(b"\x50\x04\x00\x01\x87\x00" + b"\x50\x02\x00\x02")
        assert line.refused == [(0, "not_authorized")]
        assert line.session.inflight == 1
        assert line.broker.recv(4096) == b"\x62\x02\x00\x02", "PUBREL for the other one alone"
        line.say(b"\x70\x02\x00\x02")
        assert line.acked == [1]


def test_silence_is_noticed_where_the_broker_asks_for_no_keepalive_too() -> None:
    with Line("5", connack=b"\x20\x06\x00\x00\x03\x13\x00\x00", keepalive=60) as line:
        for _ in range(4):
            line.clock.advance(15)
            line.turn()
        assert line.broker.recv(4096) == b"\xc0\x00", "our own ping"
        line.say(b"\xd0\x00")
        for _ in range(4):
            line.clock.advance(15)
            line.turn()
        assert line.ends == []
        for _ in range(2):
            line.clock.advance(15)
            line.turn()
        assert [error.reason for error in line.ends if error] == ["timeout"]


def test_the_brokers_keepalive_outweighs_ours() -> None:
    with Line("5", connack=b"\x20\x06\x00\x00\x03\x13\x00\x14", keepalive=60) as line:
        for _ in range(6):
            line.clock.advance(5)
            line.turn()
        assert [error.reason for error in line.ends if error] == ["timeout"], "after 1.5 times 20 s, not 60"


@pytest.mark.parametrize("properties", [b"\x21\x00\x00", b"\x27\x00\x00\x00\x00"])
def test_limits_of_nothing_are_no_mqtt(properties: bytes) -> None:
    body = b"\x00\x00" + bytes((len(properties),)) + properties
    with Line("5", connack=b"\x20" + bytes((len(body),)) + body) as line:
        assert line.ups == 0
        assert [error.reason for error in line.ends if error] == ["protocol"], "and not a window that never opens"
