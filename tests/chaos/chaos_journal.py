"""What a disk would hold had the power gone, by the journal that ``shims/disk.c`` wrote. Pure, but for ``write``.

The model is the least that POSIX promises: what was written before an fsync(2) of the file began is there once that has
returned; a name that was made, removed or changed is so after an fsync of the directory. Anything else may be there, or
not, or in part: a disk writes sectors of 512 bytes, in any order. Names change in order (all journalling file systems).
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Literal

_HEAD = struct.Struct("=IIQQQ")

SECTOR = 512

Fate = Literal["dropped", "kept", "torn"]
"""What becomes of what was not synced: nothing of it is there, all of it (as after kill -9), or any sectors of it."""


class Op(IntEnum):
    """As in disk.c."""

    OPEN = 1
    WRITE = 2
    TRUNCATE = 3
    SYNC_BEGUN = 4
    SYNC_DONE = 5
    UNLINK = 6
    RENAME = 7
    DIR_BEGUN = 8
    DIR_DONE = 9


@dataclass(frozen=True, slots=True)
class Change:
    """One entry. at: seconds of CLOCK_MONOTONIC; offset: of the write, or the new size."""

    op: Op
    at: float
    inode: int
    offset: int
    data: bytes


def read(path: Path) -> Iterator[Change]:
    """The entries in order; a last one that is not whole was being written at the kill."""
    octets = path.read_bytes() if path.exists() else b""
    place = 0
    while place + _HEAD.size <= len(octets):
        op, length, time_ns, inode, offset = _HEAD.unpack_from(octets, place)
        place += _HEAD.size
        if place + length > len(octets):
            return
        yield Change(Op(op), time_ns / 1e9, inode, offset, octets[place : place + length])
        place += length


def _apply(content: bytearray, change: Change) -> None:
    if change.op is Op.TRUNCATE:
        if change.offset < len(content):
            del content[change.offset :]
        content.extend(bytes(change.offset - len(content)))
        return
    content.extend(bytes(max(0, change.offset - len(content))))
    content[change.offset : change.offset + len(change.data)] = change.data


@dataclass(slots=True)
class _File:
    """durable: as of the last sync; pending: changes since, in order."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[Change] = field(default_factory=list)
    syncing: int = 0
    """How many of the pending ones the sync under way covers."""

    def synced(self) -> None:
        for change in self.pending[: self.syncing]:
            _apply(self.durable, change)
        del self.pending[: self.syncing]
        self.syncing = 0

    def after(self, fate: Fate, rng: random.Random) -> bytes:
        content = bytearray(self.durable)
        if fate == "dropped":
            return bytes(content)
        for change in self.pending:
            if fate == "kept":
                _apply(content, change)
            elif change.op is Op.TRUNCATE:
                if rng.random() < 0.5:
                    _apply(content, change)
            else:
                for sector in _sectors(change):
                    if rng.random() < 0.5:
                        _apply(content, sector)
        return bytes(content)


def _sectors(change: Change) -> Iterator[Change]:
    place = 0
    while place < len(change.data):
        size = min(SECTOR - (change.offset + place) % SECTOR, len(change.data) - place)
        yield Change(change.op, change.at, change.inode, change.offset + place, change.data[place : place + size])
        place += size


class Replay:
    """A directory on a disk, change by change; at any moment the power may go."""

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        """files: what is there, and durable, at the beginning."""
        self._before = {name: _File(bytearray(content)) for name, content in (files or {}).items()}
        self._names: dict[str, _File] = dict(self._before)
        self._durable_names: dict[str, _File] = dict(self._before)
        self._name_changes: list[dict[str, _File]] = []  # the names after each change since the last sync of them
        self._names_syncing = 0
        self._inodes: dict[int, _File] = {}

    def apply(self, change: Change) -> None:
        if change.op in (Op.WRITE, Op.TRUNCATE):
            self._inodes[change.inode].pending.append(change)
        elif change.op is Op.OPEN:
            self._open(Path(change.data.decode()).name, change.inode)
        elif change.op is Op.SYNC_BEGUN:
            file = self._inodes[change.inode]
            file.syncing = len(file.pending)
        elif change.op is Op.SYNC_DONE:
            self._inodes[change.inode].synced()
        elif change.op is Op.DIR_BEGUN:
            self._names_syncing = len(self._name_changes)
        elif change.op is Op.DIR_DONE:
            if self._names_syncing:
                self._durable_names = self._name_changes[self._names_syncing - 1]
                del self._name_changes[: self._names_syncing]
                self._names_syncing = 0
        else:
            names = dict(self._names)
            if change.op is Op.UNLINK:
                names.pop(Path(change.data.decode()).name, None)
            else:
                old, new = (Path(part.decode()).name for part in change.data.split(b"\0"))
                if (file := names.pop(old, None)) is not None:
                    names[new] = file
            self._rename(names)

    def _open(self, name: str, inode: int) -> None:
        file = self._names.get(name)
        if file is None:
            file = _File()
            self._rename({**self._names, name: file})
        self._inodes[inode] = file

    def _rename(self, names: dict[str, _File]) -> None:
        self._names = names
        self._name_changes.append(names)

    def image(self, fate: Fate, rng: random.Random) -> dict[str, bytes]:
        """The files as they are when the power comes back."""
        names = self._durable_names
        if fate == "kept":
            names = self._names
        elif fate == "torn":
            names = rng.choice([self._durable_names, *self._name_changes])
        return {name: file.after(fate, rng) for name, file in names.items()}


def files_in(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if not path.name.endswith("-shm")}


def write(image: dict[str, bytes], directory: Path) -> None:
    """Make the directory hold exactly that."""
    directory.mkdir(exist_ok=True)
    for path in directory.iterdir():
        path.unlink()
    for name, content in image.items():
        (directory / name).write_bytes(content)


def power_cut(journal: Sequence[Change], before: dict[str, bytes], fate: Fate, rng: random.Random) -> dict[str, bytes]:
    """The files after all of a journal."""
    replay = Replay(before)
    for change in journal:
        replay.apply(change)
    return replay.image(fate, rng)
