"""The largest packet of a broker that does not say: who comes under suspicion, and who is never found guilty."""

from __future__ import annotations

import pytest

from agent.errors import LinkError
from agent.mqtt_inflight import Sent
from agent.mqtt_limit import Caution, PacketLimit, packet_size
from agent.mqtt_settings import parse_url

DAY = 86_400.0


class Broker:
    """What a link sees of a broker that closes on more than ``allowed`` bytes: one connection after another."""

    def __init__(self, allowed: int, limit: PacketLimit | None = None) -> None:
        self.allowed = allowed
        self.limit = limit or PacketLimit()
        self.now = 0.0
        self.closes = 0

    def connection(self, *sizes: int) -> str | None:
        """Send a birth, then these; what the end of it was taken for, None if there was none."""
        limit = self.limit
        limit.connected()
        flying: list[int] = []
        for size in (50, *sizes):
            largest = limit.largest(self.now)
            if largest is not None and size > largest:
                continue  # set aside
            if limit.suspect(size):
                for each in flying:
                    limit.acknowledged(each)
                flying = []
            if size > self.allowed:
                # On the wire acknowledgements of those before may be lost with the connection: none has come.
                self.closes += 1
                return limit.closed([*flying, size], self.now, said=False)
            flying.append(size)
        for each in flying:
            limit.acknowledged(each)
        return None


def test_a_message_that_closes_every_connection_is_found_and_what_is_smaller_goes_on() -> None:
    broker = Broker(2000)
    verdicts = []
    while verdict := broker.connection(100, 5000, 100, 1900):
        verdicts.append(verdict)
    assert verdicts == ["doubtful", "doubtful", "suspected", "suspected", "suspected", "convicted"]
    assert broker.limit.largest(broker.now) == 4999
    assert broker.connection(1900, 2000) is None


def test_halves_of_an_array_are_found_faster_one_after_another() -> None:
    broker = Broker(2000)
    size = 16_000
    while broker.connection(size):
        largest = broker.limit.largest(broker.now)
        if largest is not None and size > largest:
            size //= 2
    assert size == 2000
    assert broker.closes == 6 + 3 + 3


def test_a_limit_is_believed_for_a_day() -> None:
    limit = PacketLimit()
    limit.refused(3000, 10.0)
    assert (limit.largest(DAY + 9.0), limit.largest(DAY + 10.0)) == (2999, None)


def closed(limit: PacketLimit, *sizes: int, said: bool = False) -> str:
    return limit.closed(sizes, 0.0, said=said)


def test_a_broker_that_flaps_while_ordinary_messages_are_in_flight_is_suspected_of_nothing() -> None:
    limit = PacketLimit()
    limit.connected()
    limit.acknowledged(3000)
    for _ in range(7):
        limit.connected()
        assert closed(limit, 90, 3000, 120) == "unrelated"
    assert not limit.suspect(5000)


def test_a_close_with_nothing_large_in_flight_begins_the_count_anew() -> None:
    limit = PacketLimit()
    for _ in range(10):
        assert closed(limit, 5000) == "doubtful"
        assert closed(limit, 5000) == "doubtful"
        assert closed(limit) == "unrelated"


def test_what_was_taken_on_the_way_acquits() -> None:
    limit = PacketLimit()
    for _ in range(5):
        limit.connected()
        closed(limit, 5000)
    assert limit.suspect(5000)
    limit.acknowledged(6000)
    assert not limit.suspect(7000)
    assert [closed(limit, 7000) for _ in range(3)] == ["doubtful", "doubtful", "suspected"]


def test_what_any_broker_takes_is_never_suspected() -> None:
    limit = PacketLimit()
    for _ in range(50):
        limit.connected()
        assert closed(limit, 512) == "unrelated"
    assert closed(limit, 513) == "doubtful"


def test_among_others_nobody_is_convicted() -> None:
    limit = PacketLimit()
    for _ in range(50):
        limit.connected()
        closed(limit, 5000, 20)
    assert limit.largest(0.0) is None


def test_a_limit_that_was_lowered_is_noticed_although_larger_ones_were_taken_before() -> None:
    broker = Broker(10_000)
    assert broker.connection(9000) is None
    broker.allowed = 2000
    for _ in range(7):
        assert broker.connection(5000) == "unrelated", "it has just taken more"
    assert [broker.connection(5000) for _ in range(7)][-2:] == ["convicted", None]


def test_a_broker_that_says_too_large_is_believed_at_once_and_about_the_one_that_was_alone() -> None:
    limit = PacketLimit()
    limit.connected()
    limit.acknowledged(9000)
    assert closed(limit, 40, 5000, 60, said=True) == "suspected"
    assert limit.suspect(5000)
    limit.connected()
    limit.acknowledged(40)
    assert closed(limit, 5000, said=True) == "convicted"
    assert limit.largest(0.0) == 4999


URL = parse_url("mqtt://h")


def sent(size: int) -> Sent:
    return Sent(None, "t", size, 0.0, 0)


@pytest.mark.parametrize("reason", ["timeout", "not_authorized", "tls", "taken_over"])
def test_an_end_that_has_a_reason_of_its_own_is_left_alone(reason: str) -> None:
    limit = PacketLimit()
    error = LinkError(reason, "x")
    for _ in range(20):
        assert limit.judge(error, [sent(5000)], URL, 0.0) == (error, False)


def test_from_the_third_one_on_the_line_names_message_and_size() -> None:
    limit = PacketLimit()
    lost = LinkError("lost", "h:1883 closed the connection")
    seen = [limit.judge(lost, [sent(40), sent(5000)], URL, 0.0) for _ in range(3)]
    assert [error is lost for error, _ in seen] == [True, True, False]
    assert (seen[2][0].reason, seen[2][1]) == ("too_large", False)
    assert "3 connections in a row" in str(seen[2][0])
    assert "5000 bytes to t" in str(seen[2][0])


def test_the_size_of_a_topic_is_counted_in_bytes() -> None:
    assert packet_size("tür", 1) == 4 + 1 + 10


def test_one_under_suspicion_goes_alone_behind_as_many_births_as_it_was_tried() -> None:
    limit = PacketLimit()
    for _ in range(4):  # three, and one of them alone
        closed(limit, 5000)
    caution = Caution(limit)
    caution.note("availability", b"online")
    caution.note("status", b"{}")
    assert not caution.may_go(True)
    assert caution.holds
    assert caution.controls(True) == [], "what is in flight is waited for"
    assert caution.settled()
    assert not caution.holds
    assert not caution.may_go(False)
    assert caution.controls(False) == [("availability", b"online")] * 2
    assert caution.settled()
    assert caution.may_go(False)
    assert caution.holds, "nothing follows it before its acknowledgement"
    caution.gone()
    assert caution.settled()
    assert not caution.settled(), "nobody waits any more"
    assert not caution.may_go(False), "the next one has controls of its own"


def test_the_control_is_the_newest_state_of_the_first_topic() -> None:
    caution = Caution(PacketLimit())
    caution.note("availability", b"online")
    caution.note("availability", b"offline")
    caution.may_go(False)
    assert caution.controls(False) == [("availability", b"offline")]
