"""What `outstation doctor` looks at. Each check gives findings; none of them opens a port or changes anything."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from glob import glob
from pathlib import Path

from click import ClickException

from agent.certificate import AHEAD_DAYS, URGENT_DAYS, days_left, expiry
from agent.cli_broker import by_hand
from agent.cli_config import read_config
from agent.cli_control_client import ask
from agent.cli_doctor_system import Finding, Unit, clock, disk, may_run, rights, systemd, unit, wear
from agent.clock import Clock, Kernel
from agent.codec import ONLINE, Topics
from agent.config import Config
from agent.errors import ConfigError, LinkError, PortError
from agent.mqtt_connect import Attempt, read_password, tls_context
from agent.mqtt_probe import probe
from agent.mqtt_settings import BrokerUrl
from agent.ports_errors import holders, port_error
from agent.ports_list import is_usb, resolve
from agent.registry import lacking
from agent.testing.subscriber import Subscriber

ROUND_TRIP = 10.0
"""Seconds for a message to the broker and back."""


def examine(file: str, *, online: bool, sys: Path = Path("/sys")) -> Iterator[Finding]:
    """All checks. Without a configuration that is right only those that need none. sys: the root of sysfs."""
    service = unit()
    try:
        config = read_config(file)
    except ConfigError as error:
        for problem in error.problems:
            yield Finding("config", "problem", str(problem), f"mend it; then: outstation check -c {file}")
    else:
        config = replace(config, mqtt=by_hand(config.mqtt, file))
        yield Finding("config", "ok", f"{', '.join(config.files)}: {len(config.devices)} device(s)")
        yield from _devices(config, service)
        yield from _said(config)
        if online:
            running = may_run(Path(f"{config.outbox.file()}.lock"), service.state)
            for url in config.mqtt.brokers():
                yield from _broker(config, url, running)
        yield from _certificate(config)
        yield from disk(config.outbox.file())
    yield from clock(Kernel(), (now := Clock()).wall_ns(now.mono_ns()))
    yield from wear(sys)
    yield from systemd(service)


def _said(config: Config) -> Iterator[Finding]:
    """What the running agent knows and nobody else: that its connection is thrown out again and again."""
    try:
        why = ask(config, "status")["link"]["last_error"]
    except ClickException:  # none runs here, or not for this user to ask
        return
    if why and why["reason"] == "taken_over":
        remedy = "another client connects with this client id: give each agent.id, or mqtt.client_id, to one alone"
        yield Finding("identity", "problem", why["text"], remedy)


def _certificate(config: Config) -> Iterator[Finding]:
    """Until when the client's certificate is valid: the broker's answer to one that is not tells little."""
    path = config.mqtt.cert_file
    if path is None:
        return
    try:
        left = days_left(expiry(path.read_bytes()), Clock())
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or error
        yield Finding("certificate", "problem", f"{path}: {why}", "check mqtt.cert_file, its mode, and that it is PEM")
        return
    if left > AHEAD_DAYS:
        yield Finding("certificate", "ok", f"{path}: valid for {left} days")
        return
    said = f"{path}: {f'valid for {left} days' if left >= 0 else 'its time is over'}"
    yield Finding("certificate", "warning" if left > URGENT_DAYS else "problem", said, "renew it: docs/enrolment.md")


def _devices(config: Config, service: Unit) -> Iterator[Finding]:
    agents = {pid for pid, _ in holders(f"{config.outbox.file()}.lock")}
    for device in config.devices:
        name = device.config.name
        if missing := lacking(device.driver, device.config):
            yield Finding("device", "problem", f"{name}: {missing}", "install it where the agent is installed")
        port = getattr(device.config, "port", None)
        if isinstance(port, str) and (port.startswith("/") or is_usb(port)):
            yield (found := _port(name, port, agents))
            if found.level == "ok":
                yield from rights(name, resolve(port) if is_usb(port) else port, service)
        elif device.config.driver == "gpio":
            chips = sorted(glob(device.driver.appears(device.config) or ""))
            if not chips:
                yield Finding("port", "problem", f"{name}: this machine has no such GPIO chip", "gpiodetect lists them")
            for chip in chips[:1]:  # all of them belong to one group
                yield from rights(name, chip, service)


def _port(name: str, port: str, agents: set[int]) -> Finding:
    """agents: processes that may have it open: those that have the outbox."""
    try:
        path = resolve(port) if is_usb(port) else port
        if not os.path.exists(path):
            raise port_error(path, errno.ENOENT, "")
        if not os.access(path, os.R_OK | os.W_OK):
            raise port_error(path, errno.EACCES, "")
    except PortError as error:
        return Finding("port", "problem", f"{name}: {error.args[0]}", error.remedy)
    others = [(pid, command) for pid, command in holders(path) if pid not in agents]
    if others:
        who = ", ".join(f"{command} (pid {pid})" for pid, command in others)
        return Finding("port", "problem", f"{name}: {path} is in use by {who}", "stop it, or let it read another port")
    return Finding("port", "ok", f"{name}: {path}")


def _broker(config: Config, url: BrokerUrl, running: bool) -> Iterator[Finding]:
    attempt = Attempt(url, config.mqtt)
    try:
        # An id of its own: a broker throws out the agent's connection for a second one with its id.
        probe(attempt, f"outstation-doctor-{os.getpid()}")
        yield Finding("broker", "ok", f"{url}: connected and logged in")
        yield from _round_trip(config, url, running)
    except LinkError as error:
        yield Finding("broker", "problem", f"{url}: {error.args[0]}", error.remedy or "look at the broker's own log")
    for note in attempt.notes:
        yield Finding("broker", "warning", note)


def _round_trip(config: Config, url: BrokerUrl, running: bool) -> Iterator[Finding]:
    settings, topics = config.mqtt, Topics(config.agent.id, config.mqtt.base)
    topic = f"{config.mqtt.base}/{config.agent.id}/doctor"
    password = read_password(settings, [])
    subscriber = Subscriber(
        str(url),
        topic,
        topics.availability,
        username=settings.username,
        password=None if password is None else password.decode("utf-8", "surrogateescape"),
        tls=tls_context(settings) if url.tls else None,
    )
    access = f"let the agent's user publish and subscribe below {config.mqtt.base}/{config.agent.id}/ at the broker"
    try:
        with subscriber:
            subscriber.publish(topic, b"doctor", timeout=ROUND_TRIP)
            subscriber.next(topic, ROUND_TRIP)
            # What is retained comes when one subscribes: before a message that was published after that.
            states = [one.payload for one in subscriber.messages if one.topic == topics.availability]
    except (OSError, AssertionError):
        yield Finding("broker", "problem", f"{url}: a message to {topic} does not come back", access)
        return
    yield Finding("broker", "ok", f"{url}: a message came back")
    if states[-1:] == [ONLINE] and not running:
        yield Finding(
            "identity",
            "problem",
            f"{url}: an agent {config.agent.id} is online, and none with this outbox runs on this machine",
            "give each board an agent.id of its own: two with one id throw each other out for ever",
        )
