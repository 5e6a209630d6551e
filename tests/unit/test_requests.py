"""Requests over MQTT: what is refused and how, what is answered where, and that each acts once."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from agent.codec import Topics
from agent.control import Answer
from agent.events import ManualClock
from agent.mqtt_message import BARE, Message, correlated
from agent.requests import LONGEST, OPEN, Operation, RequestError, Requests
from agent.requests_memory import LASTS, REMEMBERED, Asked, Bucket, Memory
from agent.requests_settings import RequestSettings


class World:
    """An agent "a" with two requests of the test's: ``ping`` answers at once, ``reload`` when the test says so."""

    def __init__(self, rate: float = 100.0) -> None:
        self.clock = ManualClock()
        self.subscribed: list[str] = []
        self.sent: list[tuple[str, Any, bytes]] = []
        self.asked: list[dict[str, Any]] = []
        self.waiting: list[Answer] = []
        self.largest = 10_000
        operations: dict[str, Operation] = {"ping": self._ping, "reload": self._reload, "restart": self._ping}
        self.requests = Requests(
            "a",
            Topics("a"),
            self.clock,
            RequestSettings(enable=("ping", "reload"), rate=rate),
            operations,
            subscribe=self.subscribed.append,
            fits=lambda _topic, size: size <= self.largest,
            answer=lambda topic, payload, properties: self.sent.append((topic, json.loads(payload), properties)),
        )

    def _ping(self, arguments: dict[str, Any], answer: Answer) -> None:
        if "wrong" in arguments:
            raise RequestError("arguments", "unknown: wrong")
        self.asked.append(arguments)
        answer({"agent": "a"}, None)

    def _reload(self, arguments: dict[str, Any], answer: Answer) -> None:
        self.asked.append(arguments)
        self.waiting.append(answer)

    def ask(self, op: str, payload: Any = None, **more: Any) -> dict[str, Any] | None:
        """Ask; the answer at the usual topic, None if there is none yet."""
        data = payload if isinstance(payload, bytes) else json.dumps(payload or {}).encode()
        before = len(self.sent)
        self.requests.message(Message(f"outstation/a/request/{op}", data, **{"retained": False, **more}))
        assert len(self.sent) <= before + 1
        return self.sent[-1][1] if len(self.sent) > before else None


@pytest.fixture
def world() -> World:
    return World()


def test_a_request_is_answered_with_its_transaction(world: World) -> None:
    world.requests.start()
    assert world.subscribed == ["outstation/a/request/+"]
    assert world.ask("ping", {"transaction": "t", "x": 1}) == {
        "status": "ok",
        "data": {"agent": "a"},
        "transaction": "t",
    }
    assert world.sent[0][0] == "outstation/a/response/ping"
    assert world.sent[0][2] == BARE
    assert world.asked == [{"x": 1}]
    assert world.ask("ping", {"agent": "a"}) == {"status": "ok", "data": {"agent": "a"}}
    assert world.requests.report() == {"done": 2, "refused": 0, "limited": 0, "repeated": 0, "open": 0}


@pytest.mark.parametrize(
    ("op", "payload", "more", "why"),
    [
        ("ping", b"", {}, "an empty message asks nothing"),
        ("ping", b"{", {}, "not JSON"),
        ("ping", b"\xff", {}, "not JSON"),
        ("ping", b"[1]", {}, "an object is due"),
        ("ping", b'"' + b"x" * LONGEST + b'"', {}, "bytes are too long; at most 4096"),
        ("ping", {"transaction": [1]}, {}, "transaction is a string or a number"),
        ("ping", {"transaction": "x" * 300}, {}, "at most 256 bytes"),
        ("ping", {"agent": "b"}, {}, "it is for another agent; this one is a"),
        ("ping", {"wrong": 1}, {}, "unknown: wrong"),
        ("ping", {}, {"retained": True}, "retained requests are refused"),
        ("ping", {}, {"expiry": 0}, "after its message expiry interval"),
        ("ping", {}, {"correlation": b"x" * 257}, "correlation data has at most 256 bytes"),
        ("restart", {}, {}, "restart is not enabled here (requests.enable); enabled: ping, reload"),
        ("pong", {}, {}, "there is no such request; enabled here: ping, reload"),
    ],
)
def test_what_is_refused_is_answered_and_does_nothing(
    world: World, op: str, payload: Any, more: dict[str, Any], why: str
) -> None:
    answer = world.ask(op, payload, **more)
    assert answer is not None
    assert answer["status"] == "error"
    assert why in answer["error"]
    assert not world.asked
    assert world.requests.report()["refused"] == 1
    assert world.requests.report()["open"] == 0


def test_other_topics_are_passed_over(world: World) -> None:
    for topic in ("outstation/b/request/ping", "outstation/a/relays/pump/set", "outstation/a/request"):
        world.requests.message(Message(topic, b"{}", False))
    assert not world.sent


def test_an_op_that_can_be_none_of_ours_is_not_repeated(world: World) -> None:
    world.ask("x" * 60_000)
    assert world.sent[0][0] == "outstation/a/response/unknown"


def test_response_topic_and_correlation_data_are_honoured(world: World) -> None:
    world.ask("ping", {"transaction": 1}, response_topic="me/answers", correlation=b"\x00\x01", expiry=5)
    assert world.sent[0][0] == "me/answers"
    assert world.sent[0][2] == b"\x05\x09\x00\x02\x00\x01"
    world.ask("ping", {}, response_topic="outstation/other/response/mine")
    assert world.sent[1][0] == "outstation/other/response/mine"


def test_correlation_data_of_any_length_has_its_own_before_it() -> None:
    assert correlated(b"x" * 200)[:5] == bytes((0xCB, 0x01, 9, 0, 200))


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "a/+",
        "a/#",
        "$SYS/x",
        "x" * 257,
        "outstation/a/relays/pump/set",
        "outstation/b/relays/pump/set",
        "outstation/a/status",
        "outstation/a/request/restart",
    ],
)
def test_a_response_topic_out_of_reason_is_refused_at_ours(world: World, topic: str) -> None:
    answer = world.ask("ping", {}, response_topic=topic, correlation=b"c")
    assert answer is not None
    assert "the response topic is" in answer["error"]
    assert world.sent[0][0] == "outstation/a/response/ping"
    assert world.sent[0][2] == correlated(b"c")
    assert not world.asked


# ---- once


def test_the_same_transaction_acts_once_and_has_the_same_answer(world: World) -> None:
    first = world.ask("ping", {"transaction": "t"})
    assert world.ask("ping", {"transaction": "t"}) == first
    assert len(world.asked) == 1
    assert world.requests.report()["repeated"] == 1
    refused = world.ask("ping", {"transaction": "t", "x": 2})
    assert refused is not None
    assert "used for another request" in refused["error"]
    world.clock.advance(LASTS + 1)
    assert world.ask("ping", {"transaction": "t", "x": 2}) == first
    assert len(world.asked) == 2


def test_it_acts_once_also_while_the_first_is_under_way(world: World) -> None:
    for topic in (None, "me/1", "me/1", "me/2"):
        assert world.ask("reload", {"transaction": 7}, response_topic=topic) is None
    assert len(world.waiting) == 1
    world.waiting[0]({"added": []}, None)
    world.waiting[0](None, "twice")
    assert [topic for topic, _, _ in world.sent] == ["outstation/a/response/reload", "me/1", "me/2"]
    assert all(said == {"status": "ok", "data": {"added": []}, "transaction": 7} for _, said, _ in world.sent)
    assert world.requests.report() == {"done": 1, "refused": 0, "limited": 0, "repeated": 3, "open": 0}


def test_text_and_number_are_two_transactions(world: World) -> None:
    world.ask("ping", {"transaction": 1})
    world.ask("ping", {"transaction": "1"})
    assert len(world.asked) == 2


def test_so_many_are_under_way_and_no_more(world: World) -> None:
    for _ in range(OPEN):
        assert world.ask("reload") is None
    refused = world.ask("reload")
    assert refused is not None
    assert "32 requests are under way" in refused["error"]
    world.waiting[0](None, "no")
    assert world.ask("reload") is None


def test_the_memory_is_bounded_and_keeps_what_is_under_way() -> None:
    memory, first = Memory(), Asked({})
    memory.add(("reload", "0"), first)
    for number in range(REMEMBERED * 3):
        memory.add(("ping", str(number)), Asked({}, payload=b"{}"))
    assert len(memory) == REMEMBERED
    assert memory.find(("reload", "0"), 1e9) is first


# ---- many


def test_what_is_over_the_rate_is_refused_and_few_of_it_answered(caplog: pytest.LogCaptureFixture) -> None:
    world = World(rate=10)
    with caplog.at_level(logging.WARNING):
        for number in range(1000):
            world.ask("ping", {"transaction": number})
    assert len(world.asked) == 20, "twice the rate at once"
    refused = [said for _, said, _ in world.sent if said["status"] == "error"]
    assert len(refused) == 5
    assert refused[0] == {
        "status": "error",
        "error": "more than 10 requests a second (requests.rate); ask again later",
        "transaction": 20,
    }
    assert world.requests.report()["limited"] == 980
    assert len(caplog.records) == 10, "the 1st, 2nd, 4th ... 512th"
    world.clock.advance(0.5)
    for number in range(1000, 1010):
        world.ask("ping", {"transaction": number})
    assert len(world.asked) == 25


def test_a_bucket_fills_up_to_its_burst() -> None:
    bucket = Bucket(2.0, 3.0)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(0.5) for _ in range(2)] == [True, False]
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]


def test_an_answer_that_the_broker_cannot_take_is_told(world: World) -> None:
    world.largest = 30
    answer = world.ask("ping", {"transaction": "t"})
    assert answer == {
        "status": "error",
        "error": "the answer has 55 bytes, more than the broker takes (mqtt.max_packet)",
        "transaction": "t",
    }


def test_the_log_names_no_op_that_is_none(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        world.ask("\x1b[31mred")
    assert "request.refused op=? kind=unknown" in caplog.text
