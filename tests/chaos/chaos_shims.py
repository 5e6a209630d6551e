"""The small C libraries below ``shims/``, which stand before the agent's libc, and the memory that we share with each.

They stand where kernel and program meet, so that a test sees and spoils what passes there, without a word in the agent.
"""

from __future__ import annotations

import atexit
import mmap
import os
import shutil
import struct
import subprocess
import tempfile
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from threading import Lock
from uuid import uuid4

SOURCES = Path(__file__).parent / "shims"


_compiling = Lock()  # rows run side by side; a program ignores a library that is only half there


def library(name: str) -> Path:
    """Compile ``shims/<name>.c`` once a run. Raises CalledProcessError, with what the compiler said on stderr."""
    with _compiling:
        return _compiled(name)


@cache
def _compiled(name: str) -> Path:
    target = _folder() / f"{name}.so"
    command = ["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(target)]
    subprocess.run([*command, str(SOURCES / f"{name}.c"), "-ldl", "-lpthread"], check=True, timeout=60)
    return target


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="outstation-shims-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def merged(parts: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """One environment from that of several shims: LD_PRELOAD takes a list (ld.so(8))."""
    env: dict[str, str] = {}
    for part in parts:
        for key, value in part.items():
            env[key] = f"{env[key]}:{value}" if key == "LD_PRELOAD" and key in env else value
    return env


def _shared(path: Path, size: int) -> mmap.mmap:
    with path.open("w+b") as file:
        file.truncate(size)
        return mmap.mmap(file.fileno(), size)


class Reads:
    """When the program read how many bytes from which pty, as ``reads.c`` writes it down."""

    ROOM = 1 << 20
    """Records; the file is sparse."""

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / f"{name}.reads"
        self._map = _shared(self._path, 16 + 16 * self.ROOM)
        self._map[8:16] = struct.pack("=Q", self.ROOM)
        self._seen = 0
        self._by_pts: dict[int, tuple[list[float], list[int]]] = {}

    @property
    def env(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(library("reads")), "CHAOS_READS": str(self._path)}

    def _update(self) -> None:
        used = struct.unpack_from("=Q", self._map)[0]
        assert used <= self.ROOM, "the file of reads is full: records are missing"
        while self._seen < used:
            time_ns, pts, size = struct.unpack_from("=QII", self._map, 16 + 16 * self._seen)
            self._seen += 1
            if time_ns:  # 0: it was killed between taking the place and filling it
                times, ends = self._by_pts.setdefault(pts, ([], [0]))
                times.append(time_ns / 1e9)
                ends.append(ends[-1] + size)

    def total(self, pts: int) -> int:
        """Bytes read from it so far, by all processes."""
        self._update()
        return self._by_pts[pts][1][-1] if pts in self._by_pts else 0

    def when(self, pts: int, end: int) -> float | None:
        """When the byte before ``end``, counted from the first ever read, was read (seconds, CLOCK_MONOTONIC)."""
        if end > self.total(pts) or pts not in self._by_pts:
            return None
        times, ends = self._by_pts[pts]
        return times[bisect_left(ends, end) - 1]


class Disk:
    """The directory of an outbox on a disk that fails on demand, and whose changes are on record: ``disk.c``."""

    _CONTROL = struct.Struct("=iiiiqq")

    def __init__(self, directory: Path, folder: Path, name: str, *, journal: bool = False) -> None:
        """folder: for the shim's own files, which are not on that disk."""
        self.directory = directory
        self.journal = folder / f"{name}.journal" if journal else None
        self._path = folder / f"{name}.disk"
        self._map = _shared(self._path, self._CONTROL.size)

    @property
    def env(self) -> dict[str, str]:
        env = {
            "LD_PRELOAD": str(library("disk")),
            "CHAOS_DISK": os.path.realpath(self.directory),
            "CHAOS_CONTROL": str(self._path),
        }
        if self.journal is not None:
            env["CHAOS_JOURNAL"] = str(self.journal)
        return env

    def fail(self, *, write: int = 0, sync: int = 0, read: int = 0) -> None:
        """From now on these errors (errno; 0: none). A sync that fails has written nothing."""
        self._map[:12] = struct.pack("=iii", write, sync, read)

    def delay(self, seconds: float) -> None:
        """From now on each sync takes so much longer."""
        self._map[12:16] = struct.pack("=i", int(seconds * 1e6))

    @property
    def failed(self) -> int:
        """Calls that were refused so far."""
        return int(self._CONTROL.unpack_from(self._map)[4])

    @property
    def synced(self) -> int:
        """Syncs that succeeded so far."""
        return int(self._CONTROL.unpack_from(self._map)[5])


class WallClock:
    """The wall clock of a program, stepped at will: ``clock.c``. Other clocks, and other programs, stay as they are."""

    def __init__(self, folder: Path, name: str, *, shift: float = 0.0, synchronised: bool = True) -> None:
        """shift: seconds by which it is wrong. synchronised: adjtimex(2)'s answer."""
        self._boot = folder / f"{name}.boot"
        self.boot()
        self._path = folder / f"{name}.clock"
        self._fifo = folder / f"{name}.steps"
        os.mkfifo(self._fifo)
        self._map = _shared(self._path, 16)
        self._steps = os.open(self._fifo, os.O_RDWR | os.O_NONBLOCK)
        self._set(shift, synchronised)

    @property
    def env(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(library("clock")),
            "CHAOS_CLOCK": str(self._path),
            "CHAOS_STEPS": str(self._fifo),
            "CHAOS_BOOT": str(self._boot),
        }

    def _set(self, shift: float, synchronised: bool) -> None:
        self._map[:12] = struct.pack("=qi", int(shift * 1e9), not synchronised)

    def boot(self) -> None:
        """Another boot of the machine, by its id; CLOCK_MONOTONIC goes on, which nobody can tell from it."""
        self._boot.write_text(f"{uuid4()}\n")

    def step(self, shift: float, *, synchronised: bool = True, tell: bool = True) -> None:
        """Set it: wrong by shift seconds from now on.

        tell: as by clock_settime(2), which cancels timers; without, it is as if it had been slewed there.
        """
        self._set(shift, synchronised)
        if tell:
            os.write(self._steps, b"s")

    def close(self) -> None:
        os.close(self._steps)
