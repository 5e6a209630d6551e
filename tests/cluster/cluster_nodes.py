"""Three nodes of a broker on one machine, by the recipe of deploy/brokers as it stands, but for paths and ports."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from agent.testing.subscriber import Subscriber  # noqa: E402  (after sys.path)

BROKERS = ROOT / "deploy" / "brokers"
RABBITMQ = "/usr/lib/rabbitmq/bin"
"""Debian's programs themselves: those in /usr/sbin change to user rabbitmq."""


class ClusterError(RuntimeError):
    """The cluster does not do what the trial needs. Caught by ``main``: the trial has failed."""


class Cluster(ABC):
    """Starts, kills and starts again."""

    program: str

    def __init__(self, home: Path, credentials: Path) -> None:
        self.home = home
        self.credentials = home / "credentials"
        self._make = credentials
        self._nodes: dict[int, subprocess.Popen[bytes]] = {}
        self.urls = [f"mqtts://localhost:{self.port(node)}" for node in range(3)]

    @staticmethod
    def port(node: int) -> int:
        return 8883 + node

    def login(self, user: str) -> list[str]:
        """Options of a command of ours."""
        own = self.credentials / "boards" / f"{user}.password"
        password = own if own.exists() else self.credentials / f"{user}.password"
        ca = str(self.credentials / "ca.pem")
        return ["--ca-file", ca, "--username", user, "--password-file", str(password)]

    def __enter__(self) -> Self:
        if shutil.which(self.program) is None:
            raise ClusterError(f"{self.program} is missing")
        command = [str(self._make), str(self.credentials), "--host", "localhost", "greenhouse-1"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        try:
            for node in range(3):
                self.start(node)
            self.whole()
            self.set_up()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self, node: int) -> None:
        """Start a node; ``whole`` waits for it."""
        directory = self.home / f"node-{node + 1}"
        directory.mkdir(exist_ok=True)
        with (directory / "output").open("ab") as output:
            self._nodes[node] = subprocess.Popen(
                self.command(node, directory),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.environment(node, directory),
                start_new_session=True,
            )

    def kill(self, node: int) -> None:
        """SIGKILL to all that belongs to it."""
        process = self._nodes.pop(node)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def close(self) -> None:
        for node in list(self._nodes):
            self.kill(node)

    def wait(self, condition: Callable[[], bool], what: str, timeout: float = 120.0) -> None:
        """Ask again and again: neither broker tells by itself. Raises ClusterError."""
        deadline = time.monotonic() + timeout
        while not condition():
            for node, process in self._nodes.items():
                if process.poll() is not None:
                    output = (self.home / f"node-{node + 1}" / "output").read_text(errors="replace")
                    raise ClusterError(f"node {node + 1} ended; its last words:\n{output[-1500:]}")
            if time.monotonic() > deadline:
                raise ClusterError(f"waited in vain until {what}")
            time.sleep(0.2)

    def listening(self) -> bool:
        for node in range(3):
            try:
                socket.create_connection(("localhost", self.port(node)), timeout=1.0).close()
            except OSError:
                return False
        return True

    @abstractmethod
    def command(self, node: int, directory: Path) -> list[str]: ...

    @abstractmethod
    def environment(self, node: int, directory: Path) -> dict[str, str]: ...

    @abstractmethod
    def whole(self) -> None:
        """Wait until all nodes run, and have all that the others have."""

    def set_up(self) -> None:  # noqa: B027  (NATS has nothing to do here)
        """Once, when it runs for the first time."""

    def drained(self, session: str, made: int, verify: Any) -> None:
        """Wait until a session's subscriber has all that was published. verify: the command that counts."""
        verify.wait_for(lambda line: _received(line) >= made, f"{session} has received {made} readings", of=str)


def _received(line: str) -> int:
    """Of a line of totals of `outstation verify`: how many readings by now."""
    found = re.search(r" received (\d+) of ", line)
    return int(found[1]) if found else 0


class RabbitMq(Cluster):
    """RabbitMQ with its MQTT plugin."""

    program = f"{RABBITMQ}/rabbitmq-server"

    def command(self, node: int, directory: Path) -> list[str]:
        text = (BROKERS / "rabbitmq" / "rabbitmq.conf").read_text()
        changes = [
            ("listeners.tcp.1 = 127.0.0.1:5672", f"listeners.tcp.1 = 127.0.0.1:{5672 + node}"),
            ("mqtt.listeners.ssl.1 = 8883", f"mqtt.listeners.ssl.1 = 127.0.0.1:{self.port(node)}"),
            ("/etc/rabbitmq/credentials", str(self.credentials)),
            *((f"rabbit@broker-{number}", f"node-{number}@localhost") for number in (1, 2, 3)),
        ]
        (directory / "rabbitmq.conf").write_text(changed(text, changes))
        shutil.copy(BROKERS / "rabbitmq" / "enabled_plugins", directory)
        return [self.program]

    def environment(self, node: int, directory: Path) -> dict[str, str]:
        return {
            **os.environ,
            "PATH": f"{RABBITMQ}:{os.environ['PATH']}",
            "HOME": str(self.home),  # Erlang's cookie
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"node-{node + 1}@localhost",
            "RABBITMQ_DIST_PORT": str(25672 + node),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(directory),
            "RABBITMQ_LOG_BASE": str(directory),
        }

    def start(self, node: int) -> None:
        super().start(node)
        if node == 0 and len(self._nodes) == 1:  # it makes the cookie that the others need
            self.wait((self.home / ".erlang.cookie").exists, "there is a cookie")

    def control(self, *words: str) -> Any:
        node = min(self._nodes)
        result = subprocess.run(
            [f"{RABBITMQ}/rabbitmqctl", "-q", *words, "--formatter", "json"],
            env=self.environment(node, self.home / f"node-{node + 1}"),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        try:
            return json.loads(result.stdout) if result.returncode == 0 else None
        except ValueError:
            return None

    def _is_whole(self) -> bool:
        if not self.listening():
            return False
        status = self.control("cluster_status")
        queues = self.control("list_queues", "name", "slave_pids", "synchronised_slave_pids")
        if status is None or queues is None or len(status["running_nodes"]) < 3:
            return False
        return all(
            len(queue["synchronised_slave_pids"] or ()) == 2
            for queue in queues
            if queue["name"].startswith("mqtt-subscription-")
        )

    def whole(self) -> None:
        self.wait(self._is_whole, "all nodes run, and all queues stand on three")

    def set_up(self) -> None:
        environment = self.environment(0, self.home / "node-1")
        command = [str(BROKERS / "rabbitmq" / "setup"), str(self.credentials), "greenhouse-1"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise ClusterError(f"setup: {done.stdout}{done.stderr}")


class Nats(Cluster):
    """NATS with MQTT and JetStream."""

    program = "nats-server"

    def command(self, node: int, directory: Path) -> list[str]:
        text = (BROKERS / "nats" / "nats.conf").read_text()
        changes = [
            ("server_name: broker-1", f"server_name: broker-{node + 1}"),
            ("listen: 127.0.0.1:4222", f"listen: 127.0.0.1:{4222 + node}"),
            ("/var/lib/nats", str(directory)),
            ("listen: 0.0.0.0:6222", f"listen: 127.0.0.1:{6222 + node}"),
            *((f"nats://broker-{number}:6222", f"nats://127.0.0.1:{6221 + number}") for number in (1, 2, 3)),
            ("listen: 0.0.0.0:8883", f"listen: 127.0.0.1:{self.port(node)}"),
            ("/etc/nats/credentials", str(self.credentials)),
            *(
                (f"CHANGE-ME-{n}", self._password(user))
                for n, user in enumerate(("boards/greenhouse-1", "reader", "operator"), 1)
            ),
        ]
        file = directory / "nats.conf"
        file.write_text(changed(text, changes))
        return [self.program, "-c", str(file)]

    def _password(self, user: str) -> str:
        return (self.credentials / f"{user}.password").read_text().strip()

    def environment(self, node: int, directory: Path) -> dict[str, str]:  # noqa: ARG002
        return dict(os.environ)

    def whole(self) -> None:
        self.wait(self.listening, "all nodes listen")
        self.wait(self._serves, "all nodes take sessions")

    def _serves(self) -> bool:
        """It listens before its nodes have agreed on who leads, and throws out who comes until then."""
        ca, password = str(self.credentials / "ca.pem"), self._password("reader")
        for url in self.urls:
            try:
                Subscriber(url, "outstation/#", username="reader", password=password, ca_file=ca).start(5.0).close()
            except OSError:
                return False
        return True


def changed(text: str, changes: list[tuple[str, str]]) -> str:
    """The recipe with what a test must change; a line that is not there is an error."""
    for old, new in changes:
        if old not in text:
            raise ClusterError(f"the recipe has no {old!r} any more")
        text = text.replace(old, new)
    return text


KINDS: dict[str, type[Cluster]] = {"rabbitmq": RabbitMq, "nats": Nats}
