"""Configuration by signed documents, at a real broker and a real agent: taken, refused, tried and taken back."""

from __future__ import annotations

import base64
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agent.fleet_document import Document, Target, sign
from agent.fleet_settings import KEY_SCHEME, key_id
from agent.testing import PtyPort
from agent.testing.broker import Broker
from agent.testing.outstation import Outstation
from agent.testing.toml import dumps

MakeDevice = Callable[..., PtyPort]
Start = Callable[..., Outstation]

KEY = Ed25519PrivateKey.generate()
PUBLIC = KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
OWN, GROUP = Target("agent", "test"), Target("group", "green")
DEAD_BROKER = 'mqtt.urls = ["mqtt://127.0.0.1:1"]\n'


def settings(**more: Any) -> dict[str, Any]:
    key = KEY_SCHEME + base64.b64encode(PUBLIC).decode()
    return {"enabled": True, "keys": [key], "groups": ["green"], "confirm_within": "10s", **more}


def lines(name: str, device: PtyPort, **more: Any) -> dict[str, Any]:
    return {"name": name, "driver": "lines", "port": device.path, "format": "json", **more}


def signed(version: int, config: str | dict[str, Any], target: Target = OWN, only: tuple[str, ...] = ()) -> bytes:
    text = config if isinstance(config, str) else dumps(config)
    document = Document(target, version, "2026-11-24T22:00:00Z", text, only)
    return sign(document, KEY, key_id(PUBLIC))


def push(outstation: Outstation, message: bytes, target: Target = OWN) -> None:
    outstation.subscriber.publish(target.topic("outstation"), message, retain=True)


def wait_report(outstation: Outstation, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """The first report of the fleet that satisfies condition, of those still to be looked at and to come."""
    topic = f"{outstation.topic}/fleet"

    def found(messages: list[Any]) -> Any:
        reports = [m.json() for m in messages if m.topic == topic and m.payload]
        return reports and condition(reports[-1]) and reports[-1]

    try:
        report: dict[str, Any] = outstation.subscriber.wait_for(found, 20)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{outstation.log}") from None
    return report


def wait_state(outstation: Outstation, version: int, state: str, target: Target = OWN) -> dict[str, Any]:
    def fits(report: dict[str, Any]) -> bool:
        said = report["documents"].get(str(target), {})
        return (said.get("version"), said.get("state")) == (version, state)

    return wait_report(outstation, fits)


@pytest.fixture
def board(outstation_make_device: MakeDevice, outstation_start: Start) -> Outstation:
    device = outstation_make_device()
    return outstation_start({"agent": {"stop_timeout": "2s"}, "fleet": settings(), "device": [lines("a", device)]})


@pytest.fixture(scope="module")
def steady() -> Iterator[Outstation]:
    """One for all tests that leave it as it is, each with versions of its own: a start takes half a second."""
    config = {"fleet": settings(), "device": [{"name": "host", "driver": "host"}]}
    with Broker() as broker, Outstation(config, broker) as outstation:
        yield outstation


def test_layers_add_and_change_devices_without_a_restart_and_outlive_one(
    outstation_make_device: MakeDevice, board: Outstation
) -> None:
    added = outstation_make_device()
    push(board, signed(5, {"device": [lines("b", added)]}, GROUP), GROUP)
    wait_state(board, 5, "applied", GROUP)
    push(board, signed(3, '[[device]]\nname = "b"\nchannels.n.scale = 10\n'))
    report = wait_state(board, 3, "applied")
    assert set(report["layers"]) == {"group/green", "agent/test"}
    added.send('{"n": 2}')
    assert board.next_reading("b").fields == {"n": 20}
    assert board.status()["link"]["connects"] == 1
    assert board.terminate() == 0
    board.start()  # the layers are in force at once, and the retained documents are no news
    added.send('{"n": 3}')
    assert board.next_reading("b").fields == {"n": 30}
    board.wait_status(lambda s: s["link"]["connects"] == 1)


def test_what_is_not_signed_older_or_for_others_is_refused_and_counted(steady: Outstation) -> None:
    first, second = signed(5, "# one\n"), signed(6, "# two\n")
    push(steady, first)
    wait_state(steady, 5, "applied")
    push(steady, second)
    wait_state(steady, 6, "applied")
    other = Ed25519PrivateKey.generate()
    table = orjson.loads(second)
    refused = [
        (OWN, first, "version 5 is older than 6"),  # replayed
        (OWN, signed(6, "# another\n"), "another document has version 6"),
        (OWN, orjson.dumps({"config": "[mqtt]"}), "not signed"),
        (OWN, sign(Document(OWN, 7, "2026-11-24T22:00:00Z", ""), other, "0123456789abcdef"), "trusted here"),
        (OWN, sign(Document(OWN, 7, "2026-11-24T22:00:00Z", ""), other, key_id(PUBLIC)), "signature"),
        (OWN, orjson.dumps({**table, "payload": base64.b64encode(b"{}").decode()}), "signature"),
        (GROUP, second, "published again for others"),
        (OWN, b"\xff" * 1000, "no JSON object"),
    ]
    for count, (target, message, reason) in enumerate(refused, 1):
        push(steady, message, target)
        report = wait_report(steady, lambda r, count=count: r["rejected"]["count"] >= count)
        assert reason in report["rejected"]["last"]
    assert report["documents"]["agent/test"]["version"] == 6
    assert report["layers"]["agent/test"]["version"] == 6


def test_a_wrong_configuration_is_refused_with_all_its_problems(steady: Outstation) -> None:
    wrong = (
        '[mqtt]\nqos = 7\n[agent]\nid = "x"\n'
        '[[device]]\nname = "sh"\ndriver = "exec"\ncommand = ["id"]\n'
        "[fleet]\nkeys = []\n"
    )
    push(steady, signed(17, wrong))
    report = wait_state(steady, 17, "refused")
    said = "\n".join(report["documents"]["agent/test"]["problems"])
    for part in ("fleet:agent/test@17:2: mqtt.qos = 7", "agent.id", "deny_drivers", "fleet:agent/test@17:9: fleet"):
        assert part in said
    assert report["layers"].get("agent/test", {}).get("version") != 17
    assert (steady.home / "outbox.fleet.json").exists()
    push(steady, signed(17, "# mended on the board instead: the same version may come again\n"))
    wait_state(steady, 17, "applied")


def test_a_board_that_cannot_reach_the_broker_takes_it_back(
    outstation_make_device: MakeDevice, outstation_start: Start
) -> None:
    device = outstation_make_device()
    fleet = settings(confirm_within="2s")
    board = outstation_start({"agent": {"stop_timeout": "2s"}, "fleet": fleet, "device": [lines("a", device)]})
    descriptors = len(os.listdir(f"/proc/{board.pid}/fd"))
    push(board, signed(8, DEAD_BROKER))
    board.wait_log(r"fleet\.restarting keys=mqtt\.urls")
    report = wait_state(board, 8, "rolled_back")
    assert "within 2 s" in report["documents"]["agent/test"]["problems"][0]
    device.send('{"n": 1}')
    assert board.next_reading("a").fields == {"n": 1}
    board.wait_status(lambda s: s["link"]["state"] == "up")
    assert len(os.listdir(f"/proc/{board.pid}/fd")) <= descriptors, "two restarts have left something open"
    push(board, signed(9, "mqtt.inflight = 50\n"))
    wait_state(board, 9, "applied")
    assert board.running
    assert board.terminate() == 0


def test_a_board_that_dies_on_trial_comes_back_as_it_was(
    outstation_make_device: MakeDevice, outstation_start: Start
) -> None:
    device = outstation_make_device()
    fleet = settings(confirm_within="100s")
    board = outstation_start({"agent": {"stop_timeout": "2s"}, "fleet": fleet, "device": [lines("a", device)]})
    push(board, signed(8, DEAD_BROKER))
    board.wait_log(r"link\.down url=mqtt://127\.0\.0\.1:1 ")
    board.signal(signal.SIGKILL)
    board.wait()
    board.start()
    report = wait_state(board, 8, "rolled_back")
    assert "ended while it was on trial" in report["documents"]["agent/test"]["problems"][0]


def test_layers_that_became_wrong_are_left_out_at_a_start(board: Outstation) -> None:
    push(board, signed(5, '[[device]]\nname = "a"\nbaudrate = 300\n'))
    wait_state(board, 5, "applied")
    assert board.terminate() == 0
    board.config["device"] = []  # a file edited by hand: what the layer changes is not there any more
    board.start()
    report = wait_report(board, lambda r: r["set_aside"])
    assert "fleet:agent/test@5" in report["set_aside"][0]
    board.wait_log(r"fleet\.set_aside")


def test_only_some_of_a_group_take_what_a_rollout_tries(steady: Outstation) -> None:
    push(steady, signed(25, "# new\n", GROUP, only=("other",)), GROUP)
    assert wait_state(steady, 25, "skipped", GROUP)["layers"].get("group/green") is None
    push(steady, signed(26, "# new\n", GROUP, only=("other", "test")), GROUP)
    wait_state(steady, 26, "applied", GROUP)
