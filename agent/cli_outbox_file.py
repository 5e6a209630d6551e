"""Which outbox a command means, and how it ends when that cannot be used: one line with a remedy, and a status."""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from agent.cli_config import load_config
from agent.clock import Clock, ClockSettings
from agent.errors import OutboxBusy, OutboxError, PluginError
from agent.model import Channel
from agent.outbox_file import Lock, error_text
from agent.outbox_reader import NoFile, NotAnOutbox, Reader
from agent.outbox_store import Boot, Contents, Store, damaged
from agent.registry import known_channels

if TYPE_CHECKING:
    from agent.config import Config

EX_DATAERR = 65
EX_NOINPUT = 66
EX_IOERR = 74
EX_TEMPFAIL = 75

SERVICE = Path("/var/lib/outstation/outbox.db")
"""Where the unit in deploy/ keeps it (StateDirectory=)."""


class Failure(click.ClickException):
    """Ends a command with a status of sysexits.h and one line."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.exit_code = status  # type: ignore[misc]  # click means it to be constant in each class

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"outstation outbox: {self.message}", file=file, err=file is None)


class Outbox:
    """The file that a command is about. config: of the agent, if that named it."""

    def __init__(self, path: Path | None, config_file: str) -> None:
        """Raises click.UsageError, ConfigFailure."""
        self.config: Config | None = None
        if path is None:
            if not os.path.exists(config_file):
                raise click.UsageError(f"which outbox? say --file FILE, or -c FILE: {config_file} is not there")
            self.config = load_config(config_file)
            path = self.config.outbox.file()
            if not path.exists() and SERVICE.exists():
                raise Failure(f"{path}: no such file; the service's is --file {SERVICE}", EX_NOINPUT)
        self.path = path
        self.clock = Clock(self.config.clock if self.config else ClockSettings())
        self._channels: dict[str, Sequence[Channel]] = {}

    def channels(self, device: str) -> Sequence[Channel]:
        """What the configuration declares of a device; nothing where there is none, or the driver is defective."""
        if device not in self._channels:
            self._channels[device] = ()
            for driver, config in self.config.devices if self.config else ():
                if config.name == device:
                    with suppress(PluginError):
                        self._channels[device] = known_channels(driver, config)
        return self._channels[device]

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        """Open for reading, whoever has it. Raises Failure."""
        with self._told(), Reader(self.path, self.clock) as reader:
            yield reader

    @contextmanager
    def store(self) -> Iterator[tuple[Store, Contents]]:
        """Open for writing, and locked. Raises Failure."""
        with self._told():
            with Reader(
                self.path, self.clock
            ):  # it must be there, whole and of this version: nothing is made or mended
                pass
            lock = Lock(self.path)
            made = not lock.path.exists()
            lock.take()
            try:
                if made and os.geteuid() == 0:  # root's, it would keep the agent's user from its own outbox
                    owner = self.path.stat()
                    os.chown(lock.path, owner.st_uid, owner.st_gid)
                store = Store(self.path)
                offset_ns, trusted = self.clock.settle()
                contents = store.open(Boot(self.clock.boot_id, offset_ns, trusted))
                try:
                    yield store, contents
                finally:
                    store.close()
            finally:
                lock.release()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OutboxBusy as error:
            who = f"process {error.pid}" if error.pid else "another process"
            raise Failure(f"{self.path} is in use by {who}; stop it first", EX_TEMPFAIL) from None
        except NoFile as error:
            raise Failure(str(error), EX_NOINPUT) from None
        except (NotAnOutbox, OutboxError) as error:
            raise Failure(str(error), EX_DATAERR) from None
        except sqlite3.Error as error:
            raise Failure(error_text(error, self.path), EX_DATAERR if damaged(error) else EX_IOERR) from None
        except PermissionError as error:
            raise Failure(error_text(error, self.path), EX_NOINPUT) from None

    def known(self, reader: Reader, device: str | None) -> None:
        """Raises click.BadParameter if the file has no such device."""
        if device is not None and device not in reader.names():
            from agent.config_words import suggestion

            words = suggestion(device, reader.names()) if reader.names() else "there is none"
            raise click.BadParameter(f"no device {device!r} in {self.path}; {words}", param_hint="--device")


class Progress:
    """A bar on standard error, if that is a terminal; else nothing."""

    def __init__(self, length: int, label: str) -> None:
        self._bar = None
        if sys.stderr.isatty():
            self._bar = click.progressbar(length=length, label=label, file=sys.stderr)
        self._done = 0
        self._due = 0.0

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.update(self._done)
            self._bar.__exit__(None, None, None)

    def add(self, count: int = 1) -> None:
        """So many more are done. Drawn ten times a second at most: drawing costs more than what it shows."""
        self._done += count
        if self._bar is not None and time.monotonic() >= self._due:
            self._due = time.monotonic() + 0.1
            self._bar.update(self._done)
            self._done = 0

    def say(self, text: str) -> None:
        """A line of its own, above the bar."""
        click.echo(f"\r\x1b[K{text}" if self._bar is not None else text, err=True)
