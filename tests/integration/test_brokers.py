"""The recipes of deploy/brokers for Mosquitto, as they stand but for paths and ports. Clusters: `make cluster`."""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.testing import Broker
from agent.testing.children import free_port
from agent.testing.subscriber import Subscriber

ROOT = Path(__file__).resolve().parents[2]
BROKERS = ROOT / "deploy" / "brokers"
BOARDS = ("a-1", "a-2", "site-1")

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here")


def make(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(BROKERS / "make-credentials"), str(directory), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("credentials")
    made = make(directory, "--host", "localhost", "--host", "127.0.0.1", *BOARDS)
    assert made.returncode == 0, made.stderr
    return directory


class Recipe(Broker):
    """Mosquitto by the recipe. ``port`` takes passwords, ``second`` certificates."""

    def __init__(self, credentials: Path, *, central: bool = False, config: str = "") -> None:
        super().__init__("mosquitto", tls=True, config=config)
        self.credentials = credentials
        self.second = free_port()
        self._central = central

    def _lines(self) -> list[str]:
        acl = (BROKERS / "mosquitto" / "acl").read_text()
        if self._central:
            acl = re.sub(r"^#(user site-1|topic readwrite outstation/#)$", r"\1", acl, flags=re.MULTILINE)
        (self._home / "acl").write_text(acl)
        text = (BROKERS / "mosquitto" / "mosquitto.conf").read_text()
        for old, new in (
            ("listener 8883", f"listener {self.port} 127.0.0.1"),
            ("listener 8884", f"listener {self.second} 127.0.0.1"),
            ("/etc/mosquitto/credentials/acl", str(self._home / "acl")),
            ("/etc/mosquitto/credentials/", f"{self.credentials}/"),
            ("/var/lib/mosquitto/", f"{self._home}/"),
        ):
            assert old in text
            text = text.replace(old, new)
        return ["log_dest stderr", *(["user root"] if os.geteuid() == 0 else []), *text.splitlines()]

    def by_password(self, user: str, *filters: str) -> Subscriber:
        known = self.credentials if user in ("reader", "operator") else self.credentials / "boards"
        password = (known / f"{user}.password").read_text().strip()
        ca = str(self.credentials / "ca.pem")
        return Subscriber(self.url, *filters, username=user, password=password, ca_file=ca)

    def by_certificate(self, board: str, *filters: str) -> Subscriber:
        boards = self.credentials / "boards"
        return Subscriber(
            f"mqtts://localhost:{self.second}",
            *filters,
            ca_file=str(self.credentials / "ca.pem"),
            cert_file=str(boards / f"{board}.pem"),
            key_file=str(boards / f"{board}.key"),
        )


@pytest.fixture(scope="module")
def broker(credentials: Path) -> Iterator[Recipe]:
    with Recipe(credentials) as broker:
        yield broker


def topics(subscriber: Subscriber) -> list[str]:
    return [message.topic for message in subscriber.messages]


@pytest.mark.parametrize("way", ["by_password", "by_certificate"])
def test_a_board_writes_and_reads_below_its_own_name_alone(broker: Recipe, way: str) -> None:
    connect = getattr(broker, way)
    with broker.by_password("operator", "outstation/#") as operator, connect("a-1", "outstation/#") as board:
        for topic in ("a-2/x/telemetry", "fleet/agent/a-1", "fleet/group/all", "a-1/last"):
            board.publish(f"outstation/{topic}", b"forged?")
        operator.wait_for(lambda messages: any(m.topic == "outstation/a-1/last" for m in messages))
        assert topics(operator) == ["outstation/a-1/last"]
        for topic in ("a-2/request/status", "fleet/agent/a-2", "a-1/x/pump/set", "fleet/agent/a-1"):
            operator.publish(f"outstation/{topic}", b"1")
        board.wait_for(lambda messages: any(m.topic == "outstation/fleet/agent/a-1" for m in messages))
        assert set(topics(board)) == {
            "outstation/a-1/last",
            "outstation/a-1/x/pump/set",
            "outstation/fleet/agent/a-1",
        }


def test_a_reader_only_reads(broker: Recipe) -> None:
    with broker.by_password("a-1", "outstation/a-1/#") as board, broker.by_password("reader", "outstation/#") as reader:
        reader.publish("outstation/a-1/x/pump/set", b"1")
        board.publish("outstation/a-1/last", b"")
        reader.wait_for(lambda messages: bool(messages))
        assert topics(reader) == topics(board) == ["outstation/a-1/last"]


def test_nobody_else_gets_in(broker: Recipe, credentials: Path) -> None:
    ca = str(credentials / "ca.pem")
    for user, password in ((None, None), ("a-1", "guessed"), ("nobody", "x")):
        with pytest.raises(ConnectionError):
            Subscriber(broker.url, username=user, password=password, ca_file=ca).start(5.0)
    second = f"mqtts://localhost:{broker.second}"
    with pytest.raises((ConnectionError, ssl.SSLError)):
        Subscriber(second, username="a-1", password="x", ca_file=ca).start(5.0)


def test_the_agent_has_all_that_it_needs_there(broker: Recipe, credentials: Path) -> None:
    """Agent a-1 as user a-1: states, information, status and readings arrive. Denied ones would be acknowledged too."""
    command = [
        *(sys.executable, "-m", "agent", "simulate", "--url", broker.url, "--name", "a", "--agents", "1"),
        *("--ca-file", str(credentials / "ca.pem"), "--username", "a-1"),
        *("--password-file", str(credentials / "boards" / "a-1.password")),
        *("--devices", "1", "--rate", "20", "--ramp", "0s", "--duration", "300ms", "--json"),
    ]
    with broker.by_password("reader", "outstation/#") as reader:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=ROOT, check=False)
        assert done.returncode == 0, done.stderr
        made = json.loads(done.stdout)["made"]
        reader.wait_for(
            lambda messages: (
                sum(m.topic.endswith("/telemetry") for m in messages) == made
                and sum(m.payload == b"" for m in messages) == 4
            )
        )
    below = "outstation/a-1"
    assert set(topics(reader)) == {
        *(f"{below}/{name}" for name in ("availability", "status", "info")),
        f"{below}/device-1/availability",
        f"{below}/device-1/telemetry",
    }


def test_consumers_share_the_work(broker: Recipe) -> None:
    """A shared subscription (MQTT 5, section 4.8.2; Mosquitto has it for 3.1.1 too): a message goes to one of them."""
    filters = ("$share/database/outstation/+/+/telemetry", "outstation/a-1/last")
    with (
        broker.by_password("reader", *filters) as one,
        broker.by_password("reader", *filters) as two,
        broker.by_password("a-1") as board,
    ):
        for number in range(20):
            board.publish("outstation/a-1/x/telemetry", b"%d" % number)
        board.publish("outstation/a-1/last", b"")
        shares = []
        for consumer in (one, two):
            consumer.wait_for(lambda messages: any(m.topic == "outstation/a-1/last" for m in messages))
            shares.append([int(m.payload) for m in consumer.messages if m.payload])
        assert all(shares)
        assert sorted(shares[0] + shares[1]) == list(range(20))


def test_a_bridge_hands_readings_up_and_commands_down(credentials: Path) -> None:
    with Recipe(credentials, central=True) as central:
        text = (BROKERS / "mosquitto" / "bridge.conf").read_text()
        for old, new in (
            ("central.example:8883", f"localhost:{central.port}"),
            ("/etc/mosquitto/credentials/central-ca.pem", str(credentials / "ca.pem")),
            ("CHANGE-ME", (credentials / "boards" / "site-1.password").read_text().strip()),
        ):
            assert old in text
            text = text.replace(old, new)
        with (
            Recipe(credentials, config=text) as site,
            central.by_password("operator", "outstation/#") as operator,
            site.by_password("a-1", "outstation/a-1/#") as board,
        ):
            # The bridge connects by itself, some time after the site's broker listens: what is retained goes up then.
            board.publish("outstation/a-1/availability", b"online", retain=True)
            operator.wait_for(lambda messages: any(m.payload == b"online" for m in messages))
            board.publish("outstation/a-1/x/telemetry", b"{}")
            operator.wait_for(lambda messages: any(m.topic.endswith("/telemetry") for m in messages))
            operator.publish("outstation/a-1/request/status", b"{}")
            board.wait_for(lambda messages: any(m.topic.endswith("/request/status") for m in messages))
            operator.publish("outstation/a-1/x/pump/set", b"1")
            board.wait_for(lambda messages: any(m.topic.endswith("/set") for m in messages))
            assert topics(operator).count("outstation/a-1/x/pump/set") == 1  # not up again


# ---- what makes the credentials


def test_what_is_there_is_kept_and_a_board_can_be_added(credentials: Path, tmp_path: Path) -> None:
    copy = tmp_path / "credentials"
    shutil.copytree(credentials, copy)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    added = make(copy, "a-9")
    assert added.returncode == 0, added.stderr
    assert [Path(line).name for line in added.stdout.splitlines()] == ["a-9.pem", "a-9.password"]
    after = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    passwords = copy / "passwords"
    assert after[passwords].startswith(before.pop(passwords))
    assert before.items() <= after.items()


def test_secrets_are_for_their_owner_alone(credentials: Path) -> None:
    open_ones = {path.name for path in credentials.rglob("*") if path.is_file() and path.stat().st_mode & 0o077}
    assert open_ones == {"ca.pem", "server.pem", *(f"{board}.pem" for board in BOARDS)}
    assert not list(credentials.glob(".making*"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a-1"], "say --host NAME"),
        (["--host", "a b", "a-1"], "neither a host name nor an address"),
        (["--host", "localhost", "a/b"], "A-Z a-z 0-9 _ -"),
        (["--host", "localhost", "fleet"], "cannot be the name of a board"),
        (["--host"], "usage:"),
    ],
)
def test_a_wrong_command_line_is_said(tmp_path: Path, arguments: list[str], said: str) -> None:
    result = make(tmp_path / "new", *arguments)
    assert result.returncode != 0
    assert said in result.stderr
