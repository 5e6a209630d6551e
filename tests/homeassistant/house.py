"""A real Home Assistant, installed from PyPI into an environment of its own, set up as its owner would do it: through
the REST API that its web pages use, nothing written into its storage.

Source: Home Assistant developer documentation, "REST API" and "Authentication API".
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

from agent.testing import children

CLIENT = "http://127.0.0.1/"
"""The client id of OAuth: any address that the authorization code may be sent to; it never is."""

# What its own installer would fetch while it starts (it uses uv, which knows nothing of pip's configuration): the
# requirements of all that it loads by itself, and of MQTT.
_REQUIREMENTS = """
import json, pathlib, homeassistant
from homeassistant.bootstrap import CORE_INTEGRATIONS, DEFAULT_INTEGRATIONS
root = pathlib.Path(homeassistant.__file__).parent / "components"
found, seen, todo = set(), set(), {*CORE_INTEGRATIONS, *DEFAULT_INTEGRATIONS, "mqtt"}
while todo:
    name = todo.pop()
    seen.add(name)
    if (file := root / name / "manifest.json").exists():
        manifest = json.loads(file.read_text())
        found.update(manifest.get("requirements", ()))
        todo |= {*manifest.get("dependencies", ())} - seen
print(*sorted(found), sep="\\n")
"""


def install(folder: Path, python: str, version: str | None) -> Path:
    """An environment with Home Assistant in it; its Python. version: None takes the newest for this Python."""
    interpreter = folder / "bin" / "python"
    done = folder / ".complete"
    if not done.exists():
        subprocess.run([python, "-I", "-m", "venv", folder], check=True)
        pip = [interpreter, "-I", "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet", "install"]
        subprocess.run([*pip, f"homeassistant=={version}" if version else "homeassistant"], check=True)
        needed = subprocess.run([interpreter, "-I", "-c", _REQUIREMENTS], check=True, capture_output=True, text=True)
        subprocess.run([*pip, *needed.stdout.split()], check=True)
        done.touch()
    return interpreter


class House:
    """Home Assistant at work. All waiting ends by a time-out, in an AssertionError with the end of its log."""

    def __init__(self, python: Path, folder: Path) -> None:
        """folder: its configuration; empty."""
        self.port = children.free_port()
        self.folder = folder
        self._python = python
        self._token = ""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        file = self.folder / "home-assistant.log"
        return file.read_text() if file.exists() else ""

    def start(self) -> None:
        """Start it, and wait until it answers. The first start takes half a minute."""
        (self.folder / "configuration.yaml").write_text(
            f"http:\n  server_host: 127.0.0.1\n  server_port: {self.port}\nlogger:\n  default: warning\n"
        )
        with (self.folder / "output").open("ab") as output:
            self._process = children.start(
                [str(self._python), "-m", "homeassistant", "--config", str(self.folder), "--skip-pip"],
                output=output,
                env={**os.environ, "PYTHONNOUSERSITE": "1"},
            )
        self.until(self._runs, 180, "Home Assistant's start")

    def _runs(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"Home Assistant ended:\n{(self.folder / 'output').read_text()[-3000:]}\n{self.log}")
        try:
            if not self._token:
                return self.ask("GET", "/api/onboarding")[0] == 200
            return bool(self.ask("GET", "/api/config")[1]["state"] == "RUNNING")
        except (OSError, http.client.HTTPException):
            return False

    def stop(self) -> None:
        if self._process is not None:
            children.end(self._process, 60)
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- asking --------------------------------------------------------------------------------------------------------

    def ask(self, method: str, path: str, body: Any = None, *, form: bool = False) -> tuple[int, Any]:
        """Status and decoded answer. form: the body goes as a web form, not as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"Content-Type": "application/x-www-form-urlencoded" if form else "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        sent = None if body is None else urlencode(body) if form else json.dumps(body)
        try:
            connection.request(method, path, sent, headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text.decode(errors="replace")

    def wants(self, method: str, path: str, body: Any = None, *, form: bool = False) -> Any:
        """As ``ask``; the answer. Raises AssertionError unless the status is 200 or 201."""
        status, answer = self.ask(method, path, body, form=form)
        assert status in (200, 201), f"{method} {path}: {status} {answer}\n{self.log[-3000:]}"
        return answer

    def until(self, condition: Callable[[], Any], timeout: float, what: str) -> Any:
        """Ask every 20 ms until condition holds; what it gave."""
        deadline = time.monotonic() + timeout
        while not (value := condition()):
            assert time.monotonic() < deadline, f"{what}: not within {timeout:g} s\n{self.log[-3000:]}"
            time.sleep(0.02)
        return value

    # -- set-up, as its owner does it ----------------------------------------------------------------------------------

    def own(self) -> None:
        """Make its owner, and log in."""
        owner = {"name": "Owner", "username": "owner", "password": "for this run only", "language": "en"}
        code = self.wants("POST", "/api/onboarding/users", {"client_id": CLIENT, **owner})["auth_code"]
        grant = {"grant_type": "authorization_code", "code": code, "client_id": CLIENT}
        self._token = self.wants("POST", "/auth/token", grant, form=True)["access_token"]
        self.until(self._runs, 60, "Home Assistant's start")

    def add_mqtt(self, port: int) -> None:
        """Settings, Devices & services, Add integration, MQTT: a broker on this machine."""
        flows = "/api/config/config_entries/flow"
        flow = self.wants("POST", flows, {"handler": "mqtt", "show_advanced_options": False})
        done = self.wants("POST", f"{flows}/{flow['flow_id']}", {"broker": "127.0.0.1", "port": port})
        assert done["type"] == "create_entry", done

    # -- states --------------------------------------------------------------------------------------------------------

    def state(self, entity: str) -> dict[str, Any] | None:
        """Of one entity, with its attributes; None: there is none of that name."""
        status, answer = self.ask("GET", f"/api/states/{entity}")
        return answer if status == 200 else None

    def shows(self, entity: str) -> str | None:
        """The text of its state."""
        found = self.state(entity)
        return None if found is None else str(found["state"])

    def entities(self, *words: str) -> dict[str, dict[str, Any]]:
        """All entities whose ids hold one of the words, by id."""
        states = self.wants("GET", "/api/states")
        return {one["entity_id"]: one for one in states if any(word in one["entity_id"] for word in words)}

    def call(self, entity: str, service: str, **data: Any) -> None:
        """What its buttons and switches do: ``turn_on``, ``set_value``, ``press`` ..."""
        domain = entity.partition(".")[0]
        self.wants("POST", f"/api/services/{domain}/{service}", {"entity_id": entity, **data})


class Changes:
    """The stream of an entity's new states, each with when it came (CLOCK_MONOTONIC, seconds)."""

    def __init__(self, house: House, entity: str) -> None:
        self.seen: list[tuple[str, float]] = []
        self._entity = entity
        self._connection = http.client.HTTPConnection("127.0.0.1", house.port, timeout=60)
        self._connection.request(
            "GET", "/api/stream?restrict=state_changed", headers={"Authorization": f"Bearer {house._token}"}
        )
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200, self._answer.status
        self._thread = threading.Thread(target=self._read, name="changes", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for line in self._answer:
                if line.startswith(b"data: {"):
                    event = json.loads(line[6:])["data"]
                    if event["entity_id"] == self._entity and event["new_state"]:
                        self.seen.append((event["new_state"]["state"], time.monotonic()))
        except (OSError, http.client.HTTPException, ValueError, AttributeError):
            pass  # closed under it, by ``close`` or by Home Assistant's end

    def when(self, state: str) -> float | None:
        """When it first became that."""
        return next((at for text, at in self.seen if text == state), None)

    def close(self) -> None:
        self._connection.close()
