"""The agent's own socket: one question, one answer, and nobody who can hold it up."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent import control
from agent.cli_control_text import changes, duration, glance, size
from agent.control import CLIENTS, LONGEST, Answer, Control, socket_path
from agent.events import EventManager, ManualClock


class Rig:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = ManualClock()
        self.failures: list[BaseException] = []
        self.manager = EventManager(self.clock, on_callback_error=lambda _event, error: self.failures.append(error))
        self.later: list[Answer] = []
        self.control = Control(
            self.manager,
            path,
            {
                "now": lambda answer: answer({"n": 1}, None),
                "no": lambda answer: answer(None, "not today"),
                "later": self.later.append,
                "large": lambda answer: answer("x" * 2_000_000, None),
            },
        )
        self.control.start()

    def turn(self) -> None:
        while self.manager.run_once(0):
            pass

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(10)
        client.connect(str(self.path))
        self.turn()
        return client

    def ask(self, request: bytes) -> Any:
        with self.connect() as client:
            client.sendall(request)
            self.turn()
            return json.loads(self.read(client))

    def read(self, client: socket.socket) -> bytes:
        client.setblocking(False)
        found = b""
        while True:
            self.turn()
            try:
                data = client.recv(65_536)
            except BlockingIOError:
                continue
            if not data:
                return found
            found += data


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path / "outbox.db.sock")
    yield rig
    rig.control.close()
    assert not rig.path.exists()
    rig.manager.close()
    assert rig.failures == []


def test_a_question_has_an_answer(rig: Rig) -> None:
    assert rig.ask(b'{"op": "now"}\n') == {"ok": True, "data": {"n": 1}}
    assert rig.ask(b'{"op": "no"}\n') == {"ok": False, "error": "not today", "data": None}
    assert len(rig.ask(b'{"op": "large"}\n')["data"]) == 2_000_000


@pytest.mark.parametrize(
    "request_",
    [b"\n", b"x\n", b"[]\n", b'{"op": []}\n', b'{"op": "other"}\n', b"{}\n", b"\xff\n", b"x" * (LONGEST + 1)],
)
def test_a_wrong_question_is_told_what_is_right(rig: Rig, request_: bytes) -> None:
    answer = rig.ask(request_)
    assert not answer["ok"]
    assert 'as {"op": "status"}; there are now, no, later, large' in answer["error"]


def test_a_question_may_come_in_pieces_and_its_answer_later(rig: Rig) -> None:
    with rig.connect() as client:
        for octet in b'{"op": "later"}\n':
            client.sendall(bytes([octet]))
            rig.turn()
        rig.clock.advance(60)
        rig.turn()
        (answer,) = rig.later
        answer("done", None)
        answer("twice", None)
        assert json.loads(rig.read(client)) == {"ok": True, "data": "done"}


def test_who_goes_before_the_answer_is_forgotten(rig: Rig) -> None:
    with rig.connect() as client:
        client.sendall(b'{"op": "later"}\n')
        rig.turn()
    rig.turn()
    rig.later[0]("done", None)
    assert not rig.control._clients


def test_who_says_nothing_is_let_go(rig: Rig) -> None:
    with rig.connect() as client:
        rig.clock.advance(control.PATIENCE + 0.1)
        rig.turn()
        assert client.recv(1) == b""


def test_there_is_room_for_a_few(rig: Rig) -> None:
    clients = [rig.connect() for _ in range(CLIENTS + 1)]
    assert clients[-1].recv(1) == b""
    for client in clients:
        client.close()
    rig.turn()
    assert rig.ask(b'{"op": "now"}\n')["ok"]


def test_without_descriptors_left_it_waits_and_does_not_spin(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(_socket: socket.socket) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(socket.socket, "accept", exhausted)
        client = rig.connect()  # turns until nothing is ready any more
    client.setblocking(False)
    with client:
        client.sendall(b'{"op": "now"}\n')
        rig.turn()
        with pytest.raises(BlockingIOError):
            client.recv(1)
        rig.clock.advance(control.BREATH)
        rig.turn()
        assert json.loads(rig.read(client)) == {"ok": True, "data": {"n": 1}}


def test_only_its_own_user_may_ask(rig: Rig) -> None:
    assert stat.S_IMODE(os.stat(rig.path).st_mode) == 0o600


def test_a_socket_that_was_left_behind_is_replaced_and_a_file_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    rig = Rig(path)
    assert rig.ask(b'{"op": "now"}\n')["ok"]
    rig.control.close()
    path.write_text("mine")
    Rig(path).control.close()
    assert path.read_text() == "mine"
    Rig(tmp_path / ("x" * 120)).control.close()
    assert caplog.text.count("control.closed") == 2
    assert "at most 107 bytes" in caplog.text


def test_it_stands_beside_the_outbox() -> None:
    assert socket_path(Path("/var/lib/outstation/outbox.db")) == Path("/var/lib/outstation/outbox.db.sock")


# ---- what people see


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.44, "0.4 s"), (12, "12 s"), (312, "5 min 12 s"), (300, "5 min"), (7260, "2 h 1 min"), (266_400, "3 d 2 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("octets", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e9, "2.5 GB")])
def test_sizes(octets: float, text: str) -> None:
    assert size(octets) == text


def test_changes() -> None:
    change = {"added": ["a", "b"], "removed": [], "changed": ["c"], "restart": ["mqtt.urls"]}
    assert changes(change) == [
        "started: a, b",
        "restarted: c",
        "waits for a restart of the agent: mqtt.urls",
    ]
    nothing = {"added": [], "removed": [], "changed": [], "restart": []}
    assert changes(nothing) == ["nothing has changed"]


def report(**device: Any) -> dict[str, Any]:
    table = {"state": "online", "readings": 5, "last_reading_s": 0.4, "faults": {}, "reason": None, **device}
    return {
        "agent": "box",
        "versions": {"agent": "1.0"},
        "uptime_s": 400,
        "link": {"state": "up", "url": "mqtt://b", "for_s": 60, "reconnects": 0, "last_error": None},
        "readings": {"added": 5, "written": 5, "dropped": 0, "rejected": 0},
        "outbox": {"waiting": 0, "bytes": 0, "blocked": False, "disk": {"state": "open", "reason": None}},
        "clock": {"trusted": True, "basis": "kernel"},
        "loop": {"slow_count": 0},
        "process": {"rss_bytes": 4e7, "cpu_s": 1.0},
        "devices": {"fine": {**table, "state": "online", "reason": None}, "weather": table},
    }


def test_a_glance_at_what_is_well() -> None:
    lines, well = glance(report())
    assert well
    assert lines[-1] == "  weather  online      5 readings, 0 faults, last 0.4 s ago"
    assert not any(line.startswith("!") for line in lines)


def test_a_glance_shows_first_what_is_away_and_why() -> None:
    lines, well = glance(report(state="waiting", reason="no such port", faults={"syntax": {"count": 2}}))
    assert not well
    assert lines[-2] == "! weather  waiting     5 readings, 2 faults, last 0.4 s ago; no such port"
    down = report()
    down["link"] |= {"state": "backoff", "for_s": 0.2, "away_s": 7500.0, "last_error": {"text": "refused"}}
    lines, well = glance(down)
    assert not well
    assert lines[1].startswith("! broker    backoff, away for 2 h 5 min, mqtt://b")
    assert "; refused" in lines[1]
