"""``outstation demo``: simulated devices, the real agent, a broker, and what arrives there; all gone when it ends."""

from __future__ import annotations

import errno
import os
import random
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from agent.demo_devices import Meter, Simulation, Source, Weather
from agent.demo_tally import DemoTally
from agent.demo_view import Facts, Keys, LiveView, PlainView, View
from agent.events import EventManager, TimerEvent
from agent.testing import children
from agent.testing.broker import Broker, BrokerError
from agent.testing.subscriber import PORTS, Message, Subscriber
from agent.testing.toml import literal

REFRESH = 0.25
STOP_TIMEOUT = 8.0
"""Seconds for the agent's clean stop; its own limit is 5 s."""
LAST_MESSAGE = 1.0
"""Seconds that the agent's last message may take from the broker to us, once the agent has ended."""
EXTRA = "pip install 'outstation[demo]'"


class DemoError(RuntimeError):
    """The demo cannot go on; says why and what to do. Caught by ``main``."""


CONFIG = """\
# The configuration of `outstation demo`, which removes it when it ends.

[agent]
id = {agent}
stop_timeout = "5s"

[mqtt]
urls = [{url}]
{credentials}
[outbox]
durability = "memory"
path = {outbox}

[status]
interval = "2s"          # elsewhere 30s will do; the demo shows faults soon

[[device]]
name = "weather"
driver = "lines"
port = {weather}
format = "json"

[device.channels.temperature]
unit = "°C"
low = -40
high = 85

[[device]]
name = "meter"
driver = "lines"
port = {meter}
format = "kv"

[device.channels.energy]
unit = "kWh"

[[device]]
name = "host"
driver = "host"
interval = "5s"
"""


class Demo:
    """One demo, from its start to its end. Everything but the connecting runs on the event manager's loop."""

    def __init__(self, broker: str | None, seconds: float | None, plain: bool) -> None:
        self._seconds = seconds
        self._given = broker
        self._plain = plain
        self._home = Path()
        self._embedded: Broker | None = None
        self._manager = EventManager(slow_after=1.0, on_callback_error=self._callback_failed)
        self._simulations: list[Simulation] = []
        self._agent: subprocess.Popen[bytes] | None = None
        self._subscriber: Subscriber | None = None
        self._tally = DemoTally("", ())
        self._view: View
        self._keys = Keys(self._key)
        self._shown = False
        self._half_line = b""
        self._log: list[str] = []
        self._stopping = False
        self._offline = False
        self._timers: list[TimerEvent] = []
        self._failure: BaseException | None = None

    def run(self) -> int:
        """Until the time is over, or a signal. Raises DemoError."""
        manager = self._manager
        with manager:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                manager.create_signal_event(number, self._signal, name=f"signal.{number.name}")
            try:
                self._home = Path(tempfile.mkdtemp(prefix="outstation-demo-"))
                self._set_up()
                manager.loop()
            finally:
                self._clean_up()
        if self._failure is not None:
            raise self._failure
        try:
            sys.stdout.write(self._tally.summary() + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            _silence()
        return 0

    # -- beginning --------------------------------------------------------------------------------------------------

    def _set_up(self) -> None:
        """Everything but the agent, which waits until we listen: the first reading shall be seen."""
        url, described = self._broker()
        agent = "demo" if self._given is None else f"demo-{secrets.token_hex(2)}"  # others may share that broker
        self._topic = f"outstation/{agent}"
        self._tally = DemoTally(self._topic, ("weather", "meter", "host"))
        self._config = self._home / "outstation.toml"
        self._config.write_text(self._configuration(agent, url))
        facts = Facts(described, agent, _watch_command(url, self._topic), str(self._config))
        self._view = PlainView(facts, self._tally, sys.stdout) if self._plain else LiveView(facts, self._tally)
        sources: tuple[Source, ...] = (Weather(random.Random(1)), Meter(random.Random(2)))
        for seed, source in enumerate(sources):
            simulation = Simulation(source, str(self._home / source.device), self._manager.now, seed=seed)
            simulation.line.replug()
            self._simulations.append(simulation)
        subscriber = Subscriber(
            url,
            f"{self._topic}/#",
            on_message=lambda message: self._manager.call_soon_threadsafe(self._arrived, message),
            keep=False,
        )
        self._manager.execute_work(
            subscriber.start,
            5.0,
            on_done=self._listening,
            on_error=lambda error: self._fail(f"no broker at {described}: {error}; does it run, and is the URL right?"),
            timeout=15.0,
            name="demo.connect",
        )

    def _broker(self) -> tuple[str, str]:
        """The broker's URL, and how to call it."""
        if self._given is not None:
            try:
                parts = urlsplit(self._given)
                port = parts.port or PORTS[parts.scheme]
            except (ValueError, KeyError):
                parts = None
            if parts is None or not parts.hostname:
                raise DemoError(f"--broker {self._given}: write mqtt://host[:port] or mqtts://host[:port]")
            return self._given, f"{parts.scheme}://{parts.hostname}:{port}"
        try:
            self._embedded = Broker("iotcore").start()
        except BrokerError as error:
            raise DemoError(f"the embedded broker does not start: {error}") from error
        return self._embedded.url, f"{self._embedded.url} (embedded)"

    def _configuration(self, agent: str, url: str) -> str:
        parts = urlsplit(url)
        host = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        credentials = ""
        if parts.username:
            credentials = f"username = {literal(unquote(parts.username))}\n"
        if parts.password:
            file = self._home / "password"
            file.touch(mode=0o600)
            file.write_text(unquote(parts.password))
            credentials += f"password_file = {literal(file)}\n"
        values = {"agent": agent, "url": host} | {name: self._home / name for name in ("weather", "meter")}
        values["outbox"] = self._home / "outbox.db"
        return CONFIG.format(credentials=credentials, **{name: literal(value) for name, value in values.items()})

    def _listening(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber
        command = [sys.executable, "-m", "agent", "run", "-c", str(self._config)]
        self._agent = children.start(
            command, output=subprocess.PIPE, cwd=self._home, env=children.environment({"PYTHONUNBUFFERED": "1"})
        )
        assert self._agent.stdout is not None
        os.set_blocking(self._agent.stdout.fileno(), False)
        manager = self._manager
        self._agent_event = manager.create_socket_event(
            self._agent.stdout, on_readable=self._agent_said, name="demo.agent"
        )
        self._view.start()
        self._shown = True
        for simulation in self._simulations:
            name = f"demo.{simulation.source.device}"
            self._every(simulation.source.interval, simulation.tick, name)
        self._every(REFRESH, self._view.refresh, "demo.refresh")
        if self._seconds is not None:
            manager.create_timer_event(self._seconds, self._stop, repeat=False, name="demo.over")
        if not self._plain and self._keys.start():
            manager.create_socket_event(self._keys, on_readable=self._keys.read, name="demo.keys")

    def _every(self, interval: float, fn: Callable[[], object], name: str) -> None:
        self._timers.append(self._manager.create_timer_event(interval, fn, name=name))

    # -- at work ----------------------------------------------------------------------------------------------------

    def _arrived(self, message: Message) -> None:
        if message.retain and not message.payload:
            return
        if self._tally.add(message):
            self._view.message(message)
        if self._stopping and message.topic == f"{self._topic}/availability" and message.payload == b"offline":
            self._offline = True  # the last thing the agent says
            if not self._agent_event.active:
                self._manager.terminate()

    def _agent_said(self) -> None:
        assert self._agent is not None
        assert self._agent.stdout is not None
        try:
            data = os.read(self._agent.stdout.fileno(), 65536)
        except BlockingIOError:
            return
        *lines, self._half_line = (self._half_line + data).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace")
            self._log = [*self._log[-19:], text]
            self._view.log(text)
        if not data:
            self._agent_ended()

    def _agent_ended(self) -> None:
        assert self._agent is not None
        self._agent_event.cancel()
        status = self._agent.wait()
        if not self._stopping:
            logged = "\n  ".join(self._log)
            self._fail(f"the agent ended with status {status}; it logged:\n  {logged}")
        elif status != 0:
            self._fail(f"the agent's clean stop ended with status {status}")
        elif self._offline:
            self._manager.terminate()
        else:  # its last message is still on its way, unless the broker has gone
            self._manager.create_timer_event(LAST_MESSAGE, self._manager.terminate, repeat=False, name="demo.late")

    def _key(self, key: str) -> None:
        if key == "c":
            self._view.say(self._config.read_text())
        elif key in ("q", "Q"):
            self._stop()

    def _callback_failed(self, event: Any, error: BaseException) -> None:
        """Whoever watched has gone (``| head``, a lost terminal): a clean end. All else is a defect; main shows it."""
        if isinstance(error, OSError) and error.errno in (errno.EPIPE, errno.EIO):
            _silence()
            self._stop()
        else:
            error.add_note(f"in {event.name}")
            self._failure = error
            self._manager.terminate()

    # -- ending -----------------------------------------------------------------------------------------------------

    def _signal(self, _number: int) -> None:
        if self._stopping:  # the second one: at once
            self._manager.terminate()
        self._stop()

    def _stop(self) -> None:
        """End the devices, then the agent, and wait for its last message."""
        if self._stopping:
            return
        self._stopping = True
        for timer in self._timers:
            timer.cancel()
        if self._agent is None:
            self._manager.terminate()
            return
        self._agent.terminate()
        self._manager.create_timer_event(
            STOP_TIMEOUT, self._fail, f"the agent did not end within {STOP_TIMEOUT:g} s", repeat=False, name="demo.hung"
        )

    def _fail(self, reason: str) -> None:
        self._failure = DemoError(reason)
        self._manager.terminate()

    def _clean_up(self) -> None:
        """Leave nothing behind: no process, no file, and nothing retained at somebody else's broker."""
        self._keys.stop()
        if self._shown:
            try:
                self._view.stop()
            except OSError:
                _silence()
        if self._agent is not None:
            children.end(self._agent, timeout=1.0)
        for simulation in self._simulations:
            simulation.line.close()
        if self._subscriber is not None:
            if self._embedded is None:
                with suppress(TimeoutError, ValueError):  # ValueError: paho, when the connection has gone
                    for topic in sorted(self._tally.topics):
                        self._subscriber.publish(topic, b"", retain=True, timeout=2.0)
            self._subscriber.close()
        if self._embedded is not None:
            self._embedded.close()
        shutil.rmtree(self._home, ignore_errors=True)


def _watch_command(url: str, topic: str) -> str:
    """What shows the same by Mosquitto's own client."""
    parts = urlsplit(url)
    words = ["mosquitto_sub", "-h", parts.hostname or "", "-p", str(parts.port or PORTS[parts.scheme])]
    if parts.scheme == "mqtts":
        words += ["--tls-use-os-certs"]
    if parts.username:
        words += ["-u", unquote(parts.username)]
    words += ["-t", f"{topic}/#", "-v"]
    return shlex.join(words) + (" -P ..." if parts.password else "")


def _silence() -> None:
    """Nobody reads us any more; what is still buffered would fail once more when the interpreter flushes it."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def main(broker: str | None = None, seconds: float | None = None, plain: bool = False) -> int:
    """Run the demo; the exit status.

    broker: URL of a broker (mqtt:// or mqtts://), instead of an embedded one; seconds: end after so long, not at
    Ctrl-C; plain: lines and not a table, as where standard output is no terminal.
    """
    plain = plain or not sys.stdout.isatty() or os.environ.get("TERM") in (None, "dumb", "unknown")
    needed = ([] if plain else ["rich"]) + (["iotcore"] if broker is None else [])
    if missing := [name for name in needed if find_spec(name) is None]:
        hint = "; --broker URL needs none of it, with --plain" if "rich" in missing else "; --broker URL does without"
        sys.stderr.write(f"outstation demo needs {' and '.join(missing)}: {EXTRA}{hint}\n")
        return 1
    try:
        return Demo(broker, seconds, plain).run()
    except DemoError as error:
        sys.stderr.write(f"outstation demo: {error}\n")
        return 1
