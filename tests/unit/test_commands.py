"""From a message at ``.../set`` to a driver, and the answer back."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from agent.codec import Topics
from agent.commands import Commands
from agent.driver import Done, Value
from agent.outputs import Output


class Relays:
    """A device of the test's: it keeps what it is told, and answers when the test says so."""

    def __init__(self, *outputs: Output) -> None:
        self.outputs: Sequence[Output] = outputs
        self.told: list[tuple[str, Value]] = []
        self.answers: list[Done] = []
        self.at_once = True

    def set(self, output: str, value: Value, done: Done) -> None:
        self.told.append((output, value))
        if self.at_once:
            done(None)
        else:
            self.answers.append(done)


class World:
    def __init__(self) -> None:
        self.subscribed: list[str] = []
        self.sent: list[tuple[str, Any]] = []
        self.relays = Relays(Output("pump"), Output("Ventil 1"), Output("level", "number"))
        self.thermometer = Relays()
        self.commands = Commands(
            Topics("a"),
            {"relays": self.relays, "thermometer": self.thermometer},
            subscribe=self.subscribed.append,
            answer=lambda topic, payload: self.sent.append((topic, json.loads(payload))),
        )

    def command(self, channel: str, payload: str, *, device: str = "relays", retained: bool = False) -> Any:
        before = len(self.sent)
        self.commands.message(f"outstation/a/{device}/{channel}/set", payload.encode(), retained)
        assert len(self.sent) <= before + 1
        return self.sent[-1][1] if len(self.sent) > before else None


@pytest.fixture
def world() -> World:
    return World()


def test_it_subscribes_only_where_a_device_has_outputs_and_once(world: World) -> None:
    for name in ("relays", "thermometer", "relays"):
        world.commands.listen(name)
    assert world.subscribed == ["outstation/a/relays/+/set"]
    world.thermometer.outputs = [Output("heater")]  # its driver could be made at last
    world.commands.listen("thermometer")
    assert world.subscribed[1:] == ["outstation/a/thermometer/+/set"]


def test_a_command_reaches_the_driver_and_is_answered(world: World) -> None:
    answer = world.command("pump", '{"value": "on", "transaction": "t1"}')
    assert world.relays.told == [("pump", True)]
    assert world.sent[0][0] == "outstation/a/response/set"
    assert answer == {
        "status": "ok",
        "data": {"device": "relays", "channel": "pump", "value": True},
        "transaction": "t1",
    }
    assert world.command("Ventil_1", "off") == {
        "status": "ok",
        "data": {"device": "relays", "channel": "Ventil 1", "value": False},
    }
    assert world.commands.report() == {"done": 2, "refused": 0}


def test_the_answer_waits_for_the_device(world: World) -> None:
    world.relays.at_once = False
    assert world.command("level", '{"value": 5, "transaction": 1}') is None
    assert world.command("level", '{"value": 6, "transaction": 2}') is None
    second, first = world.relays.answers[1], world.relays.answers[0]
    second("the unit answers with exception 2")
    first(None)
    assert [(answer["status"], answer["transaction"]) for _, answer in world.sent] == [("error", 2), ("ok", 1)]
    assert world.sent[0][1]["error"] == "the unit answers with exception 2"


@pytest.mark.parametrize(
    ("channel", "payload", "more", "why"),
    [
        ("pump", "on", {"retained": True}, "retained commands are refused"),
        ("pump", "onn", {}, "on or off is due"),
        ("pomp", "on", {}, "pomp is no output of relays; its outputs: pump, Ventil 1, level"),
        ("pump", "on", {"device": "thermometer"}, "pump is no output of thermometer; it has none"),
        ("pump", "on", {"device": "cellar"}, "there is no device cellar"),
        ("pump", "", {}, "an empty message sets nothing"),
        ("pump", "", {"retained": True}, "an empty message sets nothing"),
    ],
)
def test_what_is_refused_never_reaches_the_driver(
    world: World, channel: str, payload: str, more: dict[str, Any], why: str
) -> None:
    answer = world.command(channel, payload, **more)
    assert answer["status"] == "error"
    assert why in answer["error"]
    assert answer["data"] == {"device": more.get("device", "relays"), "channel": channel}
    assert not world.relays.told
    assert world.commands.report() == {"done": 0, "refused": 1}


def test_a_retained_command_is_refused_with_its_transaction(world: World) -> None:
    assert world.command("pump", '{"value": 1, "transaction": "r"}', retained=True)["transaction"] == "r"


@pytest.mark.parametrize(
    "topic",
    [
        "outstation/a",
        "outstation/a/relays/set",
        "outstation/a/relays/pump/get",
        "outstation/a/relays/pump/set/x",
        "outstation/b/relays/pump/set",
        "x/outstation/a/relays/pump/set",
    ],
)
def test_other_topics_are_passed_over(world: World, topic: str) -> None:
    world.commands.message(topic, b"on", False)
    assert not world.sent
    assert not world.relays.told


def test_a_sender_that_is_refused_for_ever_does_not_fill_the_log(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            world.command("pump", "nonsense")
    assert len(world.sent) == 100
    assert len(caplog.records) == 7
    assert "times=64" in caplog.text


# -- the device's side: agent.device ------------------------------------------------------------------------------


def test_it_is_answered_once_whatever_a_driver_does() -> None:
    from agent.device_outputs import ANSWER_TIMEOUT, MOST_PENDING, Pending
    from agent.events import EventManager, ManualClock

    clock = ManualClock()
    manager = EventManager(clock)
    pending = Pending(manager, "d")
    answers: list[str | None] = []

    def begin() -> Callable[[str | None], object]:
        answered = pending.begin(answers.append)
        assert answered is not None
        return answered

    answered = begin()
    answered(None)
    answered("no")
    assert answers == [None]
    begin()
    clock.advance(ANSWER_TIMEOUT)
    manager.run_once(0)
    assert answers[1:] == ["d has not answered within 10 s; it may be set all the same"]
    last = [begin() for _ in range(MOST_PENDING)]
    assert pending.begin(answers.append) is None
    pending.end("d is waiting: unplugged")
    last[0](None)
    assert answers[2:] == ["d is waiting: unplugged"] * MOST_PENDING
    assert pending.begin(answers.append) is not None
