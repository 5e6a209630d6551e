"""What a driver keeps over restarts: one small file a device, beside the outbox.

Written to a new file, fsync'ed and renamed (rename(2) is atomic), by a worker: after a power cut there is the old state
or the new one, never half of it. One write at a time; of what is saved meanwhile the last counts.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from agent.events import EventManager, WorkRejected
from agent.logline import Repeats, line

WRITE_TIMEOUT = 30.0
"""Seconds for one write: an SD card that collects its garbage takes seconds; past this the worker counts as hung."""


class StateFile:
    """The state of one device. path None: it lives as long as the agent (a driver under test)."""

    def __init__(self, manager: EventManager, device: str, path: Path | None, log: logging.Logger) -> None:
        self._manager = manager
        self._device = device
        self._path = path
        self._log = log
        self._latest: bytes | None = None
        self._next: bytes | None = None
        self._writing = False
        self._on_written: Callable[[], object] | None = None
        self._lines = Repeats()

    def load(self) -> dict[str, Any]:
        """What was saved last; {} if nothing. A damaged file is set aside. Blocks: on a worker."""
        if self._latest is not None:  # a driver made anew after a defect: the file may be behind
            latest: dict[str, Any] = orjson.loads(self._latest)
            return latest
        if self._path is None:
            return {}
        try:
            found = orjson.loads(self._path.read_bytes())
            if not isinstance(found, dict):
                raise ValueError("no JSON object")
            return found
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            aside = self._path.with_suffix(".damaged")
            with suppress(OSError):
                os.replace(self._path, aside)
            self._log.error(line("state.damaged", device=self._device, path=aside, reason=error))
            return {}

    def save(self, state: dict[str, Any]) -> None:
        """Write it, soon. Never raises: what cannot be written is said in the log, and written with the next."""
        self._next = self._latest = orjson.dumps(state)
        if not self._writing and self._path is not None:
            self._write()

    def settle(self, on_written: Callable[[], object]) -> None:
        """Call on_written once nothing is being written."""
        if self._writing:
            self._on_written = on_written
        else:
            on_written()

    def _write(self) -> None:
        assert self._path is not None
        data, self._next = self._next, None
        self._writing = True
        try:
            self._manager.execute_work(
                write_file,
                self._path,
                data,
                on_done=lambda _: self._written(None),
                on_error=self._written,
                key=f"{self._device}.state",
                timeout=WRITE_TIMEOUT,
                name=f"{self._device}.state",
            )
        except WorkRejected as full:
            self._written(full)

    def _written(self, error: BaseException | None) -> None:
        self._writing = False
        if error is None:
            self._lines.over("unsaved")
        elif times := self._lines("unsaved"):
            self._log.error(line("state.unsaved", device=self._device, path=self._path, reason=error, times=times))
        if error is None and self._next is not None:
            self._write()
            return
        on_written, self._on_written = self._on_written, None
        if on_written is not None:
            on_written()


def write_file(path: Path, data: bytes) -> None:
    """Replace the file at path as a whole, on disk when it returns. Blocks. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    with open(new, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
