"""What `outstation init` writes: the text of a configuration, and the files, whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from agent.cli_broker import PASSWORD
from agent.cli_config import read_config
from agent.cli_outbox_file import SERVICE
from agent.cli_probing import heard, result, stable, table
from agent.config_files import DEFAULT_FILE
from agent.ports_list import SerialDevice
from agent.testing.toml import dumps, literal


@dataclass(slots=True)
class Answers:
    """What is to stand in it. broker: keys of [mqtt] beyond URL and user; devices: tables of [[device]]."""

    agent: str
    url: str
    username: str | None
    password: str | None
    broker: dict[str, Any]
    discovery: bool
    host: bool
    devices: list[dict[str, Any]] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"Answers({self.agent!r})"  # the password may be in no traceback


def devices(ports: Sequence[str], found: Sequence[SerialDevice], seconds: float) -> list[dict[str, Any]]:
    """Listen on the ports; a table for each that was recognised. The others are told, with what came."""
    tables = []
    names = {"host"}
    for listener in heard(ports, seconds):
        if listener.guess is None or listener.line is None:
            for text in result(listener, found, names):
                click.echo(text, err=True)
        else:
            click.echo(f"{listener.port}: {listener.guess.what}", err=True)
            tables.append(table(listener.guess, listener.line, stable(listener.port, found), names))
    return tables


def text(answers: Answers, password_file: Path | None, *, service: bool) -> Iterator[str]:
    """The configuration, line by line. password_file: where a password that was asked for is kept; service: of the file
    that the service reads."""
    yield "# What this board reads and where it reports it, written by `outstation init`."
    yield "# After a change: outstation check, then outstation reload. Every key stands in docs/configuration.md."
    yield ""
    yield "[agent]"
    yield "# Part of every topic, and unique at the broker: outstation/<id>/<device>/telemetry."
    yield f"id = {literal(answers.agent)}"
    yield ""
    yield "[mqtt]"
    yield "# Tried in order. mqtts:// and wss:// verify the broker's certificate."
    yield f"urls = [{literal(answers.url)}]"
    if answers.username:
        yield f"username = {literal(answers.username)}"
    for key, value in answers.broker.items():
        yield f"{key} = {literal(value)}"
    if service and password_file is not None:
        yield "# The service gets its password as a credential (outstation.service.d/password.conf); without that:"
        yield f"# password_file = {literal(password_file)}"
    elif password_file is not None:
        yield f"password_file = {literal(password_file)}"
    if service:
        yield ""
        yield "[outbox]"
        yield "# The service may write there alone, and `outstation status` and its like find the running agent by it."
        yield f"path = {literal(SERVICE)}"
    yield ""
    yield "[homeassistant]"
    yield "# on: Home Assistant finds all devices by itself, through the same broker."
    yield f'discovery = "{"on" if answers.discovery else "off"}"'
    if answers.host:
        yield ""
        yield "# The host itself: CPU, memory, disks, network, temperatures."
        yield dumps({"device": [{"name": "host", "driver": "host", "interval": "10s"}]}).rstrip()
    for device in answers.devices:
        yield ""
        yield f"# Recognised by what it sends; `outstation drivers {device['driver']}` shows all that may stand here."
        yield dumps({"device": [device]}).rstrip()
    if not answers.devices:
        yield ""
        yield "# A serial device that sends lines of JSON; `outstation probe PORT` finds out what is on a port."
        yield "#[[device]]"
        yield '#name = "weather"'
        yield '#driver = "lines"'
        yield '#port = "/dev/serial/by-id/usb-..."'
        yield "#baudrate = 9600"
        yield '#format = "json"'


def write(output: Path, answers: Answers, *, force: bool) -> Iterator[str]:
    """Write what was answered; what to say and do next. Raises ConfigError where drop-ins beside it do not go with
    it, FileExistsError where there is one and ``force`` is false, and OSError."""
    output = output.absolute()
    if output.parent.exists() and not output.parent.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(output.parent))
    if not output.parent.is_dir():
        output.parent.mkdir(parents=True)
    password_file = output.with_name(PASSWORD) if answers.password is not None else None
    if password_file is not None and password_file.exists() and not force:
        raise FileExistsError(None, None, str(password_file))
    fresh = output.with_name(f".{output.name}.new")
    try:
        _put(fresh, "\n".join(text(answers, password_file, service=output == Path(DEFAULT_FILE))) + "\n", 0o644)
        read_config(str(fresh))  # with the drop-ins beside it
        if password_file is not None and answers.password is not None:
            secret = password_file.with_name(f".{PASSWORD}.new")
            _put(secret, answers.password + "\n", 0o600)
            secret.replace(password_file)
        if force:
            fresh.replace(output)
        else:
            os.link(fresh, output)  # unlike rename, refuses where there is one meanwhile
    finally:
        with suppress(FileNotFoundError):
            fresh.unlink()
    return _next(output, password_file)


def _put(path: Path, text: str, mode: int) -> None:
    """A new file with this mode from its first moment on, on disk before its name is."""
    with suppress(FileNotFoundError):
        path.unlink()  # of one that was killed
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _next(output: Path, password_file: Path | None) -> Iterator[str]:
    yield f"written: {output}"
    if password_file is not None:
        yield f"written: {password_file} (the password; its owner alone can read it)"
    option = "" if output == Path(DEFAULT_FILE) else f" -c {output}"
    yield f"next: outstation check{option}, outstation doctor{option}"
    yield f"then: outstation run{option}" if option else "then: systemctl restart outstation"
