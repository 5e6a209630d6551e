"""A running agent for a test: the real one, in a process of its own, seen through the broker as everybody sees it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agent.testing import children
from agent.testing.broker import Broker
from agent.testing.subscriber import Message, Subscriber
from agent.testing.toml import dumps


class AgentEndedError(RuntimeError):
    """The agent ended while the test waited for something; with what it logged. Caught by nobody: the test fails."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading as it arrived at the broker (docs: topics and payloads).

    ts: RFC 3339, UTC; at: monotonic seconds of its arrival; extra: "resumed", "clock", "backfill", where they appear.
    """

    device: str
    seq: int
    ts: str
    fields: dict[str, Any]
    at: float
    extra: dict[str, Any] = field(default_factory=dict)


class Outstation:
    """``python -m agent run`` on a configuration of the test's own, and a subscriber at its broker::

        config = {"device": [{"name": "weather", "driver": "lines", "port": device.path, "format": "json"}]}
        with Broker() as broker, Outstation(config, broker) as outstation:
            device.send('{"t": 21.5}')
            assert outstation.next_reading("weather").fields == {"t": 21.5}

    What the configuration does not say is filled in: ``agent.id = "test"``, the broker, an outbox of its own, a status
    report every 0.5 s. All waiting ends by ``timeout`` (seconds), in an AssertionError that shows the agent's log.
    """

    def __init__(
        self,
        config: Mapping[str, Any] | str,
        broker: Broker,
        *,
        timeout: float = 10.0,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """config: nested mappings, or TOML text; env: more environment variables for the agent."""
        self.broker = broker
        self.timeout = timeout
        self.home = Path(tempfile.mkdtemp(prefix="outstation-agent-"))
        """Its directory: configuration and outbox; removed by ``close``."""
        given = tomllib.loads(config) if isinstance(config, str) else dict(config)
        self.config = self._filled_in(given)
        self.config_path = self.home / "outstation.toml"
        self.topic = f"{self.config['mqtt'].get('base', 'outstation')}/{self.config['agent']['id']}"
        """The beginning of all its topics."""
        self.subscriber = Subscriber(
            broker.url,
            f"{self.topic}/#",
            username=broker.username,
            password=broker.password,
            ca_file=self._setting("ca_file"),
            cert_file=self._setting("cert_file"),
            key_file=self._setting("key_file"),
        )
        self._env = children.environment(env)
        self._process: subprocess.Popen[bytes] | None = None
        self._subscribed = False
        self._log: list[str] = []
        self._log_changed = threading.Condition()
        self._log_ended = False
        self._reader: threading.Thread | None = None
        self._since = 0  # messages before this one are of an earlier start
        self._parsed = 0
        self._readings: dict[str, list[Reading]] = {}
        self._given: dict[str, int] = {}

    # -- its life ---------------------------------------------------------------------------------------------------

    def start(self, *, wait: bool = True) -> Self:
        """Start the agent; again after an end, on the same configuration and outbox.

        wait: until the agent is online, and every device whose port is there. Raises AgentEndedError, AssertionError.
        """
        if not self._subscribed:
            self.subscriber.start(self.timeout)
            self._subscribed = True
        self.config_path.write_text(dumps(self.config))
        self._since = len(self.subscriber.messages)
        command = [sys.executable, "-m", "agent", "run", "-c", str(self.config_path)]
        self._process = children.start(command, output=subprocess.PIPE, cwd=self.home, env=self._env)
        self._log_ended = False
        self._reader = threading.Thread(target=self._read_log, args=(self._process,), name="agent log", daemon=True)
        self._reader.start()
        if wait:
            self.wait_online()
            for device in self.config.get("device", ()):
                if os.path.exists(device.get("port", "/")):
                    self.wait_online(device["name"])
        return self

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id. Raises LookupError before the first start."""
        if self._process is None:
            raise LookupError("the agent was not started")
        return self._process.pid

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. The exit status, negative for a signal. Raises AssertionError if it goes on."""
        assert self._process is not None, "the agent was not started"
        limit = self.timeout if timeout is None else timeout
        try:
            status = self._process.wait(limit)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the agent was still there after {limit:g} s; {self._last_lines()}") from None
        if self._reader is not None:
            self._reader.join(self.timeout)
        return status

    def terminate(self, timeout: float | None = None) -> int:
        """SIGTERM: a clean stop. The exit status."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self) -> None:
        """SIGKILL: what a crash leaves."""
        if self._process is not None:
            self._process.kill()
            self.wait()

    def close(self) -> None:
        """End it, by SIGKILL if it takes more than 2 s, and remove its directory. Idempotent."""
        if self._process is not None:
            children.end(self._process, 2.0)
            self.wait()
        if self._subscribed:
            self.subscriber.close()
        shutil.rmtree(self.home, ignore_errors=True)

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

    # -- what arrives -----------------------------------------------------------------------------------------------

    def next_reading(self, device: str, timeout: float | None = None) -> Reading:
        """The device's next reading, each given once, in order of arrival. Raises AssertionError if none comes."""
        index = self._given.get(device, 0)
        reading = self.wait_readings(device, index + 1, timeout)[index]
        self._given[device] = index + 1
        return reading

    def readings(self, device: str) -> list[Reading]:
        """All readings of the device that have arrived so far, over all starts."""
        return self._read(self.subscriber.messages).get(device, [])[:]

    def wait_readings(self, device: str, count: int, timeout: float | None = None) -> list[Reading]:
        """Wait until so many readings of the device have arrived; all of them. Raises AssertionError."""

        def enough(messages: list[Message]) -> list[Reading] | None:
            found = self._read(messages).get(device, [])
            return found if len(found) >= count else None

        found: list[Reading] = self._wait(enough, f"reading {count} of {device}", timeout)
        return found[:]

    def status(self, timeout: float | None = None) -> dict[str, Any]:
        """The latest status report of this start; waits for the first."""
        return self.wait_status(lambda _: True, timeout)

    def wait_status(
        self, condition: Callable[[dict[str, Any]], object], timeout: float | None = None
    ) -> dict[str, Any]:
        """Wait for a status report that satisfies condition. Raises AssertionError, which shows the last one."""
        last: dict[str, Any] = {}

        def fits(messages: list[Message]) -> bool:
            nonlocal last
            payload = self._latest(messages, "status")
            if not payload:
                return False
            last = Message("", payload, 0, False, 0.0).json()
            return bool(condition(last))

        try:
            self._wait(fits, "such a status report", timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}\nthe last status report: {last}") from None
        return last

    def wait_online(self, device: str | None = None, timeout: float | None = None) -> None:
        """Wait until the agent, or one of its devices, is online. Raises AssertionError."""
        self._wait_availability(b"online", device, timeout)

    def wait_offline(self, device: str | None = None, timeout: float | None = None) -> None:
        """Wait until the agent, or one of its devices, is offline. Raises AssertionError."""
        self._wait_availability(b"offline", device, timeout)

    # -- what it logs -----------------------------------------------------------------------------------------------

    @property
    def log(self) -> str:
        """All it has logged, over all starts."""
        with self._log_changed:
            return "".join(self._log)

    def wait_log(self, pattern: str, timeout: float | None = None) -> re.Match[str]:
        """Wait for a line that fits the regular expression; the match. Raises AssertionError, AgentEndedError."""
        limit = self.timeout if timeout is None else timeout
        expression = re.compile(pattern)

        def found() -> re.Match[str] | None:
            return next((match for line in self._log if (match := expression.search(line))), None)

        with self._log_changed:
            self._log_changed.wait_for(lambda: found() or self._log_ended, limit)
            match = found()
        if match is None:
            self._check_running()
            raise AssertionError(f"not logged within {limit:g} s: {pattern}; {self._last_lines()}")
        return match

    # ---------------------------------------------------------------------------------------------------------------

    def _filled_in(self, given: Mapping[str, Any]) -> dict[str, Any]:
        config = {**given}
        config["agent"] = {"id": "test", **given.get("agent", {})}
        config["mqtt"] = {**self.broker.settings, **given.get("mqtt", {})}
        config["outbox"] = {"path": str(self.home / "outbox.db"), **given.get("outbox", {})}
        config["status"] = {"interval": "500ms", **given.get("status", {})}
        return config

    def _setting(self, key: str) -> str | None:
        value = self.config["mqtt"].get(key)
        return None if value is None else str(value)

    def _read_log(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as stream:
            for line in stream:
                with self._log_changed:
                    self._log.append(line.decode(errors="replace"))
                    self._log_changed.notify_all()
        process.wait()  # its output ends a moment before it does
        with self._log_changed:
            self._log_ended = True
            self._log_changed.notify_all()
        self.subscriber.wake()  # who waits for a message shall learn that none will come

    def _last_lines(self) -> str:
        lines = self.log.splitlines()[-20:]
        return "it logged:\n  " + "\n  ".join(lines) if lines else "it logged nothing"

    def _check_running(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            if self._reader is not None:
                self._reader.join(self.timeout)
            raise AgentEndedError(f"the agent ended with status {self._process.returncode}; {self._last_lines()}")

    def _wait(self, condition: Callable[[list[Message]], Any], what: str, timeout: float | None) -> Any:
        limit = self.timeout if timeout is None else timeout
        begin = time.monotonic()

        def or_ended(messages: list[Message]) -> Any:
            return condition(messages) or (not self.running and AgentEndedError)

        try:
            result = self.subscriber.wait_for(or_ended, limit)
            # What it published at last may still be on its way from the broker.
            if result is AgentEndedError:
                result = self.subscriber.wait_for(condition, min(0.5, max(0.0, limit - time.monotonic() + begin)))
        except AssertionError as error:
            self._check_running()
            raise AssertionError(f"no {what}: {error}\n{self._last_lines()}") from None
        return result

    def _latest(self, messages: list[Message], topic: str) -> bytes | None:
        """The last payload of this start below its topic."""
        full = f"{self.topic}/{topic}"
        for index in range(len(messages) - 1, self._since - 1, -1):
            if messages[index].topic == full:
                return messages[index].payload
        return None

    def _wait_availability(self, state: bytes, device: str | None, timeout: float | None) -> None:
        topic = f"{device}/availability" if device else "availability"
        what = f"{device or 'agent'} that is {state.decode()}"
        self._wait(lambda messages: self._latest(messages, topic) == state, what, timeout)

    def _read(self, messages: list[Message]) -> dict[str, list[Reading]]:
        """Readings by device; each message is parsed once."""
        for message in messages[self._parsed :]:
            parts = message.topic.removeprefix(self.topic).split("/")
            if len(parts) == 3 and parts[2] == "telemetry":
                payload = message.json()
                for item in payload if isinstance(payload, list) else [payload]:
                    rest = {key: value for key, value in item.items() if key not in ("ts", "seq", "fields")}
                    reading = Reading(parts[1], item["seq"], item["ts"], item["fields"], message.at, rest)
                    self._readings.setdefault(parts[1], []).append(reading)
        self._parsed = len(messages)
        return self._readings
