"""A real MQTT broker for a test: Mosquitto where it is installed, else ``iotcore`` from PyPI."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from agent.testing import children
from agent.testing.certificates import Certificates

_SBIN = ("/usr/local/sbin", "/usr/sbin")  # where distributions put it, and not in every user's PATH

# rumqttd cannot be stopped, so it gets a process. `listen` must be said: its default is every interface. A payload may
# be larger than its default of 20 KiB: a status report is.
_IOTCORE = """
import sys
from iotcore import IotCoreBroker
IotCoreBroker(listen="127.0.0.1", port=int(sys.argv[1]), max_payload_size=1 << 20).run_forever()
"""


class BrokerError(RuntimeError):
    """The broker cannot be had, or did not start; says why, with what it wrote. Caught by nobody: the test fails."""


class Broker:
    """A broker of a test's own, on a free port of 127.0.0.1::

    with Broker() as broker:
        broker.url               # "mqtt://127.0.0.1:40123"
        broker.kill()            # kill -9: the port is closed
        broker.start()           # back on the same port
        broker.freeze()          # it takes and answers nothing, as behind a black hole
        broker.thaw()
    """

    def __init__(
        self,
        kind: Literal["auto", "mosquitto", "iotcore"] = "auto",
        *,
        port: int | None = None,
        username: str | None = None,
        password: str | None = None,
        tls: bool = False,
        client_certificates: bool = False,
        config: str = "",
    ) -> None:
        """kind: auto takes Mosquitto if it is there; all options but port ask for it.

        username, password: what clients have to say; tls: only TLS, with ``certificates`` made for it;
        client_certificates: only clients that show one of the same CA; config: more lines for mosquitto.conf.
        """
        self.port = port or 0
        self.username = username
        self.password = password
        self.certificates: Certificates | None = None
        """With tls: CA, server's and client's certificate; there from ``start`` on."""
        self._tls = tls or client_certificates
        self._client_certificates = client_certificates
        self._config = config
        special = bool(username or self._tls or config)
        self.kind: Literal["mosquitto", "iotcore"] = _choose(kind, special)
        self._fixed_port = port is not None
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """As ``mqtt.urls`` takes it; without credentials."""
        return f"mqtts://localhost:{self.port}" if self._tls else f"mqtt://127.0.0.1:{self.port}"

    @property
    def settings(self) -> dict[str, object]:
        """The ``[mqtt]`` table of an agent that shall use it."""
        settings: dict[str, object] = {"urls": [self.url]}
        if self.username is not None:
            settings["username"] = self.username
        if self.password is not None:
            file = self._home / "client-password"
            file.touch(mode=0o600)
            file.write_text(self.password)
            settings["password_file"] = str(file)
        if self.certificates is not None:
            settings["ca_file"] = str(self.certificates.ca_file)
            if self._client_certificates:
                settings["cert_file"] = str(self.certificates.client_cert_file)
                settings["key_file"] = str(self.certificates.client_key_file)
        return settings

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process's id. Raises BrokerError if it does not run."""
        if self._process is None:
            raise BrokerError("the broker does not run")
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has written since it was made, over all its starts."""
        if self._directory is None:
            return ""
        try:
            return (self._directory / "log").read_text(errors="replace")
        except OSError:
            return ""

    def start(self, timeout: float = 10.0) -> Self:
        """Start, and wait until it accepts connections; again on the same port. Raises BrokerError."""
        if self.running:
            return self
        attempts = 1 if self._fixed_port else 5
        for attempt in range(attempts):
            if not self._fixed_port:
                self.port = children.free_port()
            self._check_port()
            command = self._command()
            with (self._home / "log").open("ab") as log:
                self._process = children.start(command, output=log)
            if self._await_listening(timeout):
                self._fixed_port = True
                return self
            self.kill()
            if attempt == attempts - 1 or "in use" not in self.log:  # else somebody was quicker to take the port
                break
        raise BrokerError(f"{self.kind} did not listen on 127.0.0.1:{self.port}; it wrote:\n{self.log}")

    def stop(self, timeout: float = 5.0) -> None:
        """SIGTERM, as an administrator does. The port stays reserved for ``start``. Idempotent."""
        if self._process is not None:
            children.end(self._process, timeout)
            self._process = None

    def kill(self) -> None:
        """SIGKILL, as a power cut does. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self.stop()

    def restart(self) -> None:
        """Stop and start on the same port; it forgets sessions and retained messages."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: connections stay, and nothing answers, until ``thaw``."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT: it goes on where it stood."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """Stop, and remove its files. Idempotent."""
        self.kill()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---------------------------------------------------------------------------------------------------------------

    @property
    def _home(self) -> Path:
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="outstation-broker-"))
        return self._directory

    def _command(self) -> list[str]:
        if self.kind == "iotcore":
            # -P: a directory called iotcore in somebody's working directory shall not be taken for it.
            return [sys.executable, "-P", "-c", _IOTCORE, str(self.port)]
        program = _mosquitto()
        assert program is not None
        file = self._home / "mosquitto.conf"
        file.write_text("\n".join([*self._lines(), self._config, ""]))
        return [program, "-c", str(file)]

    def _lines(self) -> list[str]:
        lines = [
            "per_listener_settings false",
            "persistence false",
            "log_dest stderr",
            "log_timestamp_format %H:%M:%S",
            "set_tcp_nodelay true",
            # A test that outruns its subscriber shall see every reading: the default drops above 1000. (0 is no limit,
            # but with an ACL Mosquitto 2.0.11 then drops the connection of who may not publish.)
            "max_queued_messages 1000000",
            f"listener {self.port} 127.0.0.1",
        ]
        if os.geteuid() == 0:
            lines.insert(0, "user root")  # it would become "mosquitto", who may not read our directory
        if self.username is None:
            lines.append("allow_anonymous true")
        else:
            password_file = self._home / "passwords"
            tool = shutil.which("mosquitto_passwd") or "mosquitto_passwd"
            command = [tool, "-b", "-c", str(password_file), self.username, self.password or ""]
            subprocess.run(command, check=True, capture_output=True, timeout=30)
            lines += ["allow_anonymous false", f"password_file {password_file}"]
        if self._tls:
            if self.certificates is None:
                self.certificates = Certificates.make(self._home)
            made = self.certificates
            lines += [f"cafile {made.ca_file}", f"certfile {made.cert_file}", f"keyfile {made.key_file}"]
            if self._client_certificates:
                lines.append("require_certificate true")
        return lines

    def _check_port(self) -> None:
        """Otherwise we might take somebody else's listener for ours, before ours has found the port taken."""
        try:
            # SO_REUSEADDR, which create_server sets: connections of an earlier start may linger.
            socket.create_server(("127.0.0.1", self.port)).close()
        except OSError as error:
            raise BrokerError(f"port {self.port} of 127.0.0.1: {error.strerror}") from error

    def _await_listening(self, timeout: float) -> bool:
        """Neither broker says in a way to wait for that it listens: try to connect, and wait on its end meanwhile."""
        assert self._process is not None
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1.0).close()
            except OSError:
                pass
            else:
                return self._process.poll() is None
            try:
                self._process.wait(0.01)
            except subprocess.TimeoutExpired:
                continue
            return False
        return False


def _mosquitto() -> str | None:
    return shutil.which("mosquitto", path=os.pathsep.join([os.environ.get("PATH", os.defpath), *_SBIN]))


def _choose(kind: Literal["auto", "mosquitto", "iotcore"], special: bool) -> Literal["mosquitto", "iotcore"]:
    if kind != "iotcore" and _mosquitto():
        return "mosquitto"
    if kind == "mosquitto" or special:
        raise BrokerError("Mosquitto is not installed: apt install mosquitto")
    if find_spec("iotcore") is None:
        raise BrokerError("there is no broker: apt install mosquitto, or pip install 'outstation[demo]'")
    return "iotcore"
