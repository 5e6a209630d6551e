"""The status page over real sockets on an event manager whose clock the test moves."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as families

from agent import page
from agent.events import EventManager, ManualClock
from agent.model import Channel, Reading
from agent.page import CLIENTS, STREAMS, Page
from agent.page_client import IDLE_SECONDS, REQUEST_SECONDS
from agent.page_log import LINES, LONGEST_LINE, RecentLog
from agent.page_settings import PageSettings, parse_address
from agent.page_values import CHANNELS, CHARTED, POINTS, STEP, Values

REPORT: dict[str, Any] = {
    "agent": "greenhouse-1",
    "uptime_s": 12.5,
    "versions": {"agent": "1.0"},
    "clock": {"trusted": True},
    "link": {"state": "up", "in_flight": 1, "connects": 2, "failures": 3},
    "readings": {"sent": 4, "written": 5, "rejected": 6},
    "outbox": {"depth": 7, "bytes": 8, "dropped": {"weather": 9}, "disk": {"state": "open"}},
    "devices": {
        "weather": {
            "state": "online",
            "readings": 10,
            "openings": 1,
            "last_reading_s": 0.5,
            "faults": {"syntax": {"count": 11}},
        }
    },
    "loop": {"lag_s": 0.001, "turns": 12, "callbacks": 13, "slow": {'a "quoted" name': {"count": 14}}},
    "workers": {"threads": 1, "queued": 0, "finished": 15, "failed": 0},
}


def reading(body: bytes, seq: int = 1, device: str = "weather") -> Reading:
    return Reading(device, seq, 0, body)


class Rig:
    def __init__(self, **settings: Any) -> None:
        self.clock = ManualClock()
        self.failures: list[BaseException] = []
        self.manager = EventManager(self.clock, on_callback_error=lambda _event, error: self.failures.append(error))
        self.device = SimpleNamespace(state="online", channels=[Channel("t", "°C")])
        self.builds = 0
        self.lag = 0.0
        self.unwell: str | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.page = Page(
            self.manager,
            PageSettings(listen=f"127.0.0.1:{self.port}", **settings),
            {"weather": self.device},
            self.report,
            lambda: 7,
            unwell=lambda: self.unwell,
        )
        self.page.start()

    def report(self) -> dict[str, Any]:
        self.builds += 1
        return {**REPORT, "loop": {**REPORT["loop"], "lag_s": self.lag}}

    def turn(self) -> None:
        while self.manager.run_once(0):
            pass

    def connect(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), 10)
        self.turn()
        return client

    def read(self, client: socket.socket, until: str = "") -> str:
        """What comes until the end of the connection, or until that stands in it."""
        client.setblocking(False)
        found = b""
        for _ in range(100_000):
            self.turn()
            try:
                data = client.recv(65_536)
            except BlockingIOError:
                if until and until in found.decode():
                    break
                continue
            if not data:
                break
            found += data
        else:
            pytest.fail(f"neither the end nor {until!r} came: {found!r}")
        return found.decode()

    def ask(self, path: str, *headers: str, method: str = "GET") -> tuple[int, str]:
        """Status, and the body."""
        with self.connect() as client:
            lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
            client.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")
            head, _, body = self.read(client).partition("\r\n\r\n")
            return int(head.split()[1]), body

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.turn()


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.page.close()
    rig.turn()
    assert not rig.page._clients
    assert rig.manager.stats().descriptors == 0
    rig.manager.close()
    assert rig.failures == []


# ---- what is there


def test_the_page_and_its_parts_are_there_and_nothing_comes_from_elsewhere(rig: Rig) -> None:
    status, index = rig.ask("/")
    assert status == 200
    for path in re.findall(r'(?:src|href)="([^"]+)"', index):
        assert rig.ask(path)[0] == 200, path
    for name in ("index.html", "token.html", "page.css", "page.js"):
        text = (page.ASSETS / name).read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|@import|url\(", text), f"{name} takes something from elsewhere"
        assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|\beval\b| style=| on[a-z]+=", text), name


@pytest.mark.parametrize(
    "path",
    ["/../../etc/passwd", "/page.css/..", "/%2e%2e/page.py", "//", "/index.html", "/api", "/..%2fpage.py", "/\\"],
)
def test_there_are_no_files_below_the_page(rig: Rig, path: str) -> None:
    status, body = rig.ask(path)
    assert status == 404
    assert "/api/status" in body


def test_the_status_is_the_report_with_the_values(rig: Rig) -> None:
    rig.page.values.take([reading(b'{"t":21.5,"text":"fair"}')])
    status, body = rig.ask("/api/status")
    said = json.loads(body)
    assert status == 200
    assert said["agent"] == "greenhouse-1"
    assert said["values"] == {"weather": {"t": {"value": 21.5, "unit": "°C"}, "text": {"value": "fair", "unit": ""}}}
    assert said["charts"]["waiting"] == 7


def test_a_report_is_built_once_for_all_who_ask_at_a_time(rig: Rig) -> None:
    for _ in range(10):
        rig.ask("/api/status")
        rig.ask("/metrics")
        rig.ask("/healthz")
    assert rig.builds == 1
    rig.advance(page.STATUS_FRESH)
    rig.ask("/api/status")
    assert rig.builds == 2


def test_metrics_are_read_by_prometheus_own_parsers(rig: Rig) -> None:
    rig.page.values.take([reading(b'{"t":21.5,"on":true,"text":"fair","none":null}')])
    for accept, parse in (("*/*", families), ("application/openmetrics-text; version=1.0.0", open_families)):
        status, body = rig.ask("/metrics", f"Accept: {accept}")
        assert status == 200
        samples = {(s.name, *sorted(s.labels.items())): s.value for family in parse(body) for s in family.samples}
        assert samples["outstation_link_up",] == 1
        assert samples["outstation_readings_written_total",] == 5
        assert samples["outstation_device_faults_total", ("device", "weather"), ("kind", "syntax")] == 11
        assert samples["outstation_loop_slow_total", ("event", 'a "quoted" name')] == 14
        assert samples["outstation_channel_value", ("channel", "t"), ("device", "weather"), ("unit", "°C")] == 21.5
        assert samples["outstation_channel_value", ("channel", "on"), ("device", "weather"), ("unit", "")] == 1
        assert not [key for key in samples if ("channel", "text") in key or ("channel", "none") in key]
        assert samples["process_resident_memory_bytes",] > 0


def test_health_is_a_status_and_a_reason(rig: Rig) -> None:
    assert rig.ask("/healthz") == (200, '{"status":"ok"}\n')
    rig.unwell = "stopping"
    assert rig.ask("/healthz") == (503, '{"status":"unwell","reason":"stopping"}\n')
    rig.unwell = None
    rig.lag = 2.0
    rig.advance(1)
    assert rig.ask("/healthz") == (503, '{"status":"unwell","reason":"the event loop is late by 2.0 s"}\n')


def test_a_denied_request_is_named_in_the_log(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(4):
        assert rig.ask("/", "Origin: http://evil.example")[0] == 403
    assert [r.getMessage() for r in caplog.records if "denied" in r.getMessage()][-1] == (
        "page.denied peer=127.0.0.1 status=403 path=/ count=4"
    )


def test_requests_on_one_connection_are_answered_in_turn(rig: Rig) -> None:
    with rig.connect() as client:
        get = b"GET %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n"
        client.sendall(
            get % (b"/healthz", b"") + get % (b"/nothing", b"") + get % (b"/page.css", b"Connection: close\r\n")
        )
        said = rig.read(client)
        assert re.findall(r"HTTP/1.1 (\d+)", said) == ["200", "404", "200"]


# ---- who is slow, and who is many


def test_who_drips_a_request_is_told_so_and_let_go(rig: Rig) -> None:
    with rig.connect() as client:
        for _ in range(3):
            client.sendall(b"GET / HTTP/1.1\r\nX: "[:10])
            rig.advance(REQUEST_SECONDS / 3 - 0.1)
        rig.advance(0.5)
        assert "408 Request Timeout" in rig.read(client, "408")
        client.close()
    with rig.connect() as client:  # says nothing at all
        rig.advance(REQUEST_SECONDS + 0.1)
        assert rig.read(client) == ""


def test_between_two_requests_there_is_more_time(rig: Rig) -> None:
    with rig.connect() as client:
        request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        client.sendall(request)
        rig.read(client, "ok")
        rig.advance(IDLE_SECONDS - 1)
        client.sendall(request[:5])
        rig.turn()
        rig.advance(REQUEST_SECONDS - 1)
        client.sendall(request[5:])
        rig.read(client, "ok")
        rig.advance(IDLE_SECONDS + 0.1)
        assert rig.read(client) == ""


def test_a_crowd_is_turned_away_with_an_answer_and_the_silent_make_room(rig: Rig) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    crowd = [rig.connect() for _ in range(CLIENTS)]
    late = rig.connect()
    assert "503 Service Unavailable" in rig.read(late, "connections are open")
    late.close()
    crowd[0].sendall(request)  # a browser, say
    rig.read(crowd[0], "ok")
    crowd[1].sendall(b"G")
    rig.advance(page.CROWDED + 0.1)
    with rig.connect() as client:
        assert rig.read(crowd[1]) == "", "the first that never asked"
        client.sendall(request)
        rig.read(client, "ok")
        crowd[0].sendall(request)
        rig.read(crowd[0], "ok")
    more = [rig.connect() for _ in range(2 * CLIENTS)]
    assert len(rig.page._clients) <= CLIENTS
    assert len(rig.page._refused) <= CLIENTS
    for client in (*crowd, *more):
        client.close()
    rig.turn()
    assert rig.ask("/healthz")[0] == 200


def test_no_descriptor_left_is_said_and_the_loop_does_not_spin(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def exhausted() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(rig.page, "_socket", SimpleNamespace(accept=exhausted))
        client = rig.connect()  # would never come back
    assert 'page.exhausted reason="Too many open files"' in caplog.text
    rig.advance(STEP)
    client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    rig.read(client, "ok")
    client.close()


def test_a_refusal_arrives_though_more_was_sent(rig: Rig) -> None:
    with rig.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n" + b"x" * 60_000)
        assert "413" in rig.read(client, "takes a body")


def test_a_turn_of_the_loop_serves_some_and_not_all(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "SHARE", 0.0)  # one request a turn
    clients = [rig.connect() for _ in range(8)]
    for client in clients:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    served = []
    real = rig.page.respond
    monkeypatch.setattr(rig.page, "respond", lambda *args: (served.append(rig.manager.stats().turns), real(*args))[1])
    rig.turn()
    assert len(served) == len(set(served)) == 8
    for client in clients:
        rig.read(client, "ok")
        client.close()


# ---- live


def stream(rig: Rig) -> socket.socket:
    client = rig.connect()
    client.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return client


def events(text: str) -> list[tuple[str, Any]]:
    return [(name, json.loads(data)) for name, data in re.findall(r"event: (\w+)\ndata: (.*)\n\n", text)]


def test_a_stream_begins_with_all_and_goes_on_with_what_is_new(rig: Rig) -> None:
    logging.getLogger("outstation").warning("link.down reason=lost")
    rig.page.values.take([reading(b'{"t":20}')])
    rig.advance(2)
    with stream(rig) as client:
        first = events(rig.read(client, "event: log"))
        assert [name for name, _ in first] == ["history", "state", "log"]
        assert first[0][1]["devices"]["weather"]["t"][-2:] == [None, 20.0]
        assert first[1][1]["values"]["weather"]["t"]["value"] == 20
        assert first[2][1][-1]["text"] == "link.down reason=lost"
        rig.page.values.take([reading(b'{"t":21}')])
        rig.advance(1)
        ((name, state),) = events(rig.read(client, "event: state"))
        assert (name, state["values"]["weather"]["t"]["value"]) == ("state", 21)
    rig.advance(1)
    assert rig.page._pushing is None, "nobody looks: nothing is built"


def test_streams_are_few(rig: Rig) -> None:
    streams = [stream(rig) for _ in range(STREAMS)]
    rig.turn()
    assert rig.ask("/events")[0] == 503
    for client in streams:
        client.close()
    rig.advance(1)
    with stream(rig) as client:
        rig.read(client, "event: state")


def test_a_slow_stream_is_left_out_and_then_let_go(rig: Rig) -> None:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", rig.port))
        rig.turn()
        client.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        rig.page.values.take([reading(json.dumps({f"c{n}": "x" * 119 for n in range(60)}).encode())])
        rig.turn()
        (one,) = rig.page._clients
        for _ in range(2000):  # until the kernel's buffers are full; then it is not ready
            if not one.ready:
                break
            rig.advance(1)
        held = len(one._out)
        for _ in range(10):
            rig.advance(1)
        assert 0 < len(one._out) == held, "nothing is kept for it"
        rig.advance(10)
        assert not rig.page._clients


# ---- what is kept


def test_charts_are_bounded_in_points_channels_and_devices() -> None:
    devices = {f"d{n}": SimpleNamespace(state="online", channels=[]) for n in range(8)}
    values = Values(devices, {})
    for tick in range(POINTS + 10):
        for name in devices:
            values.take([reading(json.dumps({f"c{n}": tick for n in range(CHANNELS + 5)}).encode(), device=name)])
        values.step()
    history = values.history()
    assert sum(len(channels) for channels in history["devices"].values()) == CHARTED
    assert len(history["devices"]["d0"]["c0"]) == POINTS
    assert history["devices"]["d0"]["c0"][-1] == POINTS + 9
    assert history["devices"]["d0"]["c0"][0] == 10
    assert len(values.latest()["d0"]) == CHANNELS
    del devices["d0"]
    values.step()
    assert "d0" not in values.history()["devices"]
    assert "d0" not in values.latest()


def test_a_device_that_is_away_draws_no_line() -> None:
    device = SimpleNamespace(state="online", channels=[])
    values = Values({"weather": device}, {})
    values.take([reading(b'{"t":1}'), reading(b'{"h":2}')])
    values.step()
    device.state = "waiting"
    values.step()
    assert values.history()["devices"]["weather"]["t"][-2:] == [1.0, None]
    assert values.latest()["weather"] == {"t": {"value": 1, "unit": ""}, "h": {"value": 2, "unit": ""}}


def test_the_log_is_bounded_in_lines_and_their_length() -> None:
    log = RecentLog()
    logger = logging.Logger("test")
    logger.addHandler(log)
    for n in range(LINES + 5):
        logger.info("line %d %s", n, "x" * 1000)
    logger.debug("not shown")
    lines = log.since(0)
    assert len(lines) == LINES
    assert lines[0]["n"] == 6
    assert len(lines[-1]["text"]) == LONGEST_LINE
    assert [each["n"] for each in log.since(LINES + 3)] == [LINES + 4, LINES + 5]


# ---- where it listens


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:8080", ("::1", 8080)),
        ("localhost:1", ("127.0.0.1", 1)),
        ("0.0.0.0:8080", ("0.0.0.0", 8080)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address
    assert str(parse_address(text)) == text.replace("localhost", "127.0.0.1")


@pytest.mark.parametrize(
    "text", ["", "8080", "127.0.0.1", ":8080", "a.example:80", "1.2.3:80", "1.2.3.4:0", "1.2.3.4:65536"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="IP address and a port"):
        parse_address(text)


def test_what_fails_at_the_start_is_said_and_the_agent_goes_on(
    rig: Rig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(settings: PageSettings) -> str:
        caplog.clear()
        other = Page(rig.manager, settings, {}, rig.report, lambda: 0, unwell=lambda: None)
        other.start()
        assert other.port == 0
        other.close()
        return caplog.text

    assert "another program listens there" in refused(PageSettings(listen=f"127.0.0.1:{rig.port}"))
    assert "does not have that address" in refused(PageSettings(listen="192.0.2.1:8080", token_file=_token(tmp_path)))
    missing = PageSettings(listen="127.0.0.1:1", token_file=tmp_path / "missing")
    assert "missing cannot be read" in refused(missing)
    (tmp_path / "short").write_text("secret")
    text = refused(PageSettings(listen="127.0.0.1:1", token_file=tmp_path / "short"))
    assert "openssl rand" in text
    assert "secret" not in text


def _token(folder: Path) -> Path:
    path = folder / "token"
    path.write_text("0123456789abcdef")
    path.chmod(0o600)
    return path


def test_with_a_token_the_page_is_closed_to_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rig = Rig(token_file=_token(tmp_path))
    try:
        for path in ("/api/status", "/metrics", "/page.js", "/nothing"):
            assert rig.ask(path)[0] == 401
            assert rig.ask(path, "Authorization: Bearer 0123456789abcdef")[0] != 401
        assert rig.ask("/healthz")[0] == 200
        assert "0123456789abcdef" not in caplog.text
    finally:
        rig.page.close()
        rig.manager.close()
