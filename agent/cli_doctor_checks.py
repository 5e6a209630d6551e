"""What `outstation doctor` looks at. Each check gives findings; none of them opens a port or changes anything."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agent.cli_config import read_config
from agent.clock import Kernel
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

FULL = 50_000_000
"""Bytes below which a disk counts as full: SQLite needs room to tidy up as well."""
ROUND_TRIP = 10.0
"""Seconds for a message to the broker and back."""
UNIT = "outstation.service"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. problem: the agent does not work so; warning: it does, for now or in part."""

    check: str
    level: Literal["ok", "warning", "problem"]
    text: str
    remedy: str = ""


def examine(file: str, *, online: bool) -> Iterator[Finding]:
    """All checks. Without a configuration that is right only those that need none."""
    state = unit_state()
    try:
        config = read_config(file)
    except ConfigError as error:
        for problem in error.problems:
            yield Finding("config", "problem", str(problem), f"mend it; `outstation check -c {file}` shows the line")
    else:
        yield Finding("config", "ok", f"{', '.join(config.files)}: {len(config.devices)} device(s)")
        yield from _devices(config)
        if online:
            running = may_run(Path(f"{config.outbox.file()}.lock"), state)
            for url in config.mqtt.brokers():
                yield from _broker(config, url, running)
        yield from disk(config.outbox.file())
    yield from clock(Kernel())
    yield from wear(Path("/sys"))
    yield from systemd(state)


def _devices(config: Config) -> Iterator[Finding]:
    agents = {pid for pid, _ in holders(f"{config.outbox.file()}.lock")}
    for device in config.devices:
        name = device.config.name
        if missing := lacking(device.driver, device.config):
            yield Finding("device", "problem", f"{name}: {missing}", "install it where the agent is installed")
        port = getattr(device.config, "port", None)
        if isinstance(port, str) and (port.startswith("/") or is_usb(port)):
            yield _port(name, port, agents)


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


def clock(kernel: Kernel) -> Iterator[Finding]:
    """Whether the kernel calls its clock synchronised (adjtimex(2))."""
    if kernel.synchronised():
        yield Finding("clock", "ok", "synchronised")
    else:
        remedy = "timedatectl shows why; without a time server or in a container see clock.trust"
        yield Finding("clock", "warning", "the kernel does not call its clock synchronised", remedy)


def disk(file: Path) -> Iterator[Finding]:
    """Whether the outbox can be written, and has room."""
    folder = next(folder for folder in file.parents if folder.exists())
    if not os.access(file if file.exists() else folder, os.W_OK):
        remedy = "run this as the agent's user; else give it the directory: chown, or StateDirectory= in its unit"
        yield Finding("disk", "problem", f"this user may not write {file}", remedy)
    free = shutil.disk_usage(folder).free
    text = f"{free // 1_000_000} MB free for {file}"
    if free < FULL:
        yield Finding("disk", "problem", text, "make room: journalctl --vacuum-size=50M, apt-get clean")
    else:
        yield Finding("disk", "ok", text)


def wear(sys: Path) -> Iterator[Finding]:
    """What eMMC says of its wear (JEDEC JESD84-B51, DEVICE_LIFE_TIME_EST: 1 to 10 tenths, 11 past it); SD cards say
    nothing."""
    for entry in sorted(sys.glob("block/mmcblk*/device/life_time")):
        name = entry.parents[1].name
        try:
            worst = max(int(word, 16) for word in entry.read_text().split())
        except (OSError, ValueError):
            continue
        text = f"{name} has used {min(worst, 10) * 10} % of its life"
        if worst >= 9:
            yield Finding("wear", "warning", text, "replace it soon; durability = spill or memory writes least")
        elif worst > 0:
            yield Finding("wear", "ok", text)


def unit_state() -> str:
    """What systemd says of the agent's unit, as systemctl(1) words it; "" where there is no systemd."""
    if not os.path.isdir("/run/systemd/system"):  # sd_booted(3)
        return ""
    command = ["systemctl", "is-active", UNIT]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def systemd(state: str) -> Iterator[Finding]:
    """Whether the unit is installed and active."""
    if state == "active":
        yield Finding("systemd", "ok", f"{UNIT} is active")
    elif state:
        remedy = f"systemctl status {UNIT} tells why; deploy/README.md tells how to install it"
        yield Finding("systemd", "warning", f"{UNIT} is {state}", remedy)


def may_run(lock: Path, state: str) -> bool:
    """Whether an agent of ours runs here, as far as can be told: an outbox that is closed to this user may be in use.

    state: of the unit, whose outbox may be another than that of whoever asks.
    """
    try:
        lock.stat()
    except FileNotFoundError:
        return state in ("active", "activating", "reloading")
    except OSError:
        return True
    return bool(holders(str(lock))) or state in ("active", "activating", "reloading")
