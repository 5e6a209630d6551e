"""A board's share of this machine: control groups with so much of one core and so much memory, one for each process
that is measured.

Both generations of cgroups are known (cgroups(7)); root is needed. Broker, subscriber and whoever writes to the lines
stay outside, as on a board whose broker is elsewhere.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

ASK = "OUTSTATION_BENCH_BOX"
"""Environment: "0.25,64000000" has every measured process run in a box of so much of a core and so many bytes."""
PERIOD_US = 10_000
"""Microseconds in which the share of the core is given. By the kernel's default of 100 ms, 25 of them would go at full
speed and the next 75 not at all: latencies of a machine that does not exist."""

_ROOT = Path("/sys/fs/cgroup")
_numbers = itertools.count()


class Box:
    """cores: how much of one core, 0.25 is a quarter; octets: bytes of memory, page cache included."""

    def __init__(self, cores: float, octets: int) -> None:
        self.cores = cores
        self.octets = octets
        self._groups: list[Path] = []

    def open(self) -> None:
        """Make it. Raises OSError where control groups cannot be made: no root, or a container."""
        name = f"outstation-bench-{os.getpid()}-{next(_numbers)}"
        quota = str(int(PERIOD_US * self.cores))
        if (_ROOT / "cgroup.controllers").exists():
            (_ROOT / "cgroup.subtree_control").write_text("+cpu +memory +cpuset")
            group = self._make(_ROOT / name)
            (group / "cpu.max").write_text(f"{quota} {PERIOD_US}")
            (group / "memory.max").write_text(str(self.octets))
            (group / "cpuset.cpus").write_text("0")
            return
        group = self._make(_ROOT / "cpu" / name)
        (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text(quota)
        (self._make(_ROOT / "memory" / name) / "memory.limit_in_bytes").write_text(str(self.octets))
        group = self._make(_ROOT / "cpuset" / name)
        (group / "cpuset.mems").write_text((_ROOT / "cpuset" / "cpuset.mems").read_text())
        (group / "cpuset.cpus").write_text("0")

    def _make(self, group: Path) -> Path:
        group.mkdir()
        self._groups.append(group)
        return group

    def inside(self, command: Sequence[str | Path]) -> list[str | Path]:
        """The command that runs this one inside, from its first instruction on, under the same process id."""
        enter = "".join(f"echo $$ >{group}/cgroup.procs && " for group in self._groups)
        return ["sh", "-c", f'{enter}exec "$@"', "sh", *command]

    def close(self) -> None:
        """Remove it. What ran in it must have ended, and been waited for."""
        for group in self._groups:
            with suppress(OSError):
                group.rmdir()
        self._groups.clear()


def asked_for() -> Box | None:
    """The box that a measured process is to run in."""
    if not (words := os.environ.get(ASK)):
        return None
    cores, octets = words.split(",")
    return Box(float(cores), int(octets))
